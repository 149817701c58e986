"""Previews are leased like jobs; studies have a time of day"""

import sqlalchemy as sa
from alembic import op

from db.types import UtcDateTime

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # SQLite adds NOT NULL columns only with a default; the code writes every value itself.
    long_ago = sa.text("'1970-01-01 00:00:00.000000'")
    op.add_column("preview", sa.Column("losses", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(
        "preview", sa.Column("run_after", UtcDateTime(), nullable=False, server_default=long_ago)
    )
    op.add_column("preview", sa.Column("last_error", sa.String()))
    op.alter_column("preview", "answer", new_column_name="result")
    op.add_column(
        "study", sa.Column("study_time", sa.String(16), nullable=False, server_default="")
    )


def downgrade() -> None:
    op.drop_column("study", "study_time")
    op.alter_column("preview", "result", new_column_name="answer")
    for column in ("last_error", "run_after", "losses"):
        op.drop_column("preview", column)
