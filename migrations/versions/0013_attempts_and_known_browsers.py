"""Attempts at passwords are counted by key; browsers are known; sessions say where they are"""

import sqlalchemy as sa
from alembic import op

from db.types import UtcDateTime

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.drop_table("sign_in_failure")  # its rows counted for ten minutes
    op.create_table(
        "password_attempts",
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("spent_until_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("who", name=op.f("pk_password_attempts")),
    )
    op.create_index(
        op.f("ix_password_attempts_spent_until_s"), "password_attempts", ["spent_until_s"]
    )
    op.create_table(
        "known_browser",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user_account.id"], name=op.f("fk_known_browser_user_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_known_browser")),
        sa.UniqueConstraint(
            "token_sha256", "user_id", name=op.f("uq_known_browser_token_sha256_user_id")
        ),
    )
    op.create_index(op.f("ix_known_browser_user_id"), "known_browser", ["user_id"])
    for name in ("address", "browser"):
        column = sa.Column(name, sa.String(64), nullable=False, server_default="")
        op.add_column("web_session", column)


def downgrade() -> None:
    op.drop_column("web_session", "browser")
    op.drop_column("web_session", "address")
    op.drop_table("known_browser")
    op.drop_table("password_attempts")
    op.create_table(
        "sign_in_failure",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("happened_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_failure")),
    )
    op.create_index("ix_sign_in_failure_who_happened_at", "sign_in_failure", ["who", "happened_at"])
    op.create_index(op.f("ix_sign_in_failure_happened_at"), "sign_in_failure", ["happened_at"])
