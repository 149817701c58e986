"""Uploads that are analysed once and not kept"""

import sqlalchemy as sa
from alembic import op

from db.types import UtcDateTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "preview",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("keep", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("lease_expires_at", UtcDateTime()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("uploaded_at", UtcDateTime()),
        sa.Column("ended_at", UtcDateTime()),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.Integer()),
        sa.Column("reason", sa.String()),
        sa.Column("answer", sa.JSON()),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"], name=op.f("fk_preview_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preview")),
        sa.UniqueConstraint("name", name=op.f("uq_preview_name")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_preview_state_id", "preview", ["state", "id"])
    op.create_index(op.f("ix_preview_user_id"), "preview", ["user_id"])


def downgrade() -> None:
    op.drop_table("preview")
