"""Notifications are counted in the broker's queue, not recorded on the job"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("job") as job:
        job.drop_column("rung_at")


def downgrade() -> None:
    with op.batch_alter_table("job") as job:
        job.add_column(sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True))
