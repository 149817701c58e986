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
    _rename_key("doubts", "caveats")
    op.add_column(
        "study", sa.Column("study_time", sa.String(16), nullable=False, server_default="")
    )


def _rename_key(old: str, new: str) -> None:
    """In the results of uploads, which are kept for an hour: a few rows."""
    preview = sa.table("preview", sa.column("id", sa.Integer), sa.column("result", sa.JSON))
    connection = op.get_bind()
    for row in connection.execute(sa.select(preview).where(preview.c.result.is_not(None))).all():
        if row.result and old in row.result:
            result = {new if key == old else key: value for key, value in row.result.items()}
            change = sa.update(preview).where(preview.c.id == row.id).values(result=result)
            connection.execute(change)


def downgrade() -> None:
    op.drop_column("study", "study_time")
    _rename_key("caveats", "doubts")
    op.alter_column("preview", "result", new_column_name="answer")
    for column in ("last_error", "run_after", "losses"):
        op.drop_column("preview", column)
