"""Images removed by retention; an index of instances by file"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("study") as table:
        table.add_column(sa.Column("images_removed_at", sa.DateTime(timezone=True), nullable=True))
        table.create_index(
            "ix_study_images_removed_at_ended_at", ["images_removed_at", "ended_at"], unique=False
        )
    with op.batch_alter_table("instance") as table:
        table.add_column(sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
        table.create_index("ix_instance_file", ["file"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("study") as table:
        table.drop_index("ix_study_images_removed_at_ended_at")
        table.drop_column("images_removed_at")
    with op.batch_alter_table("instance") as table:
        table.drop_index("ix_instance_file")
        table.drop_column("removed_at")
