"""Unread studies expire; ages are counted in operating time; what fills the disk is recorded"""

import sqlalchemy as sa
from alembic import op

from db.types import UtcDateTime, db_now

revision = "0011"
down_revision = "0010"

UNREAD = {"ix_study_unread": "", "ix_study_unread_stat": "stat", "ix_study_unread_severe": "severe"}
EXPIRED = {"ix_study_expired": "", "ix_study_expired_severe": "severe"}
COLUMNS = ["last_received_at", "id"]


def upgrade() -> None:
    op.create_table(
        "maintenance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("operating_s", sa.BigInteger(), nullable=False),
        sa.Column("read_at", UtcDateTime(), nullable=False),
        sa.Column("disk_usage", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenance")),
    )
    _add_columns()
    op.create_index(
        "ix_study_removal_pending",
        "study",
        ["id"],
        sqlite_where=sa.text("removal_pending IS 1"),
        postgresql_where=sa.text("removal_pending IS true"),
    )
    op.execute("UPDATE study SET result_s = kept_from_s WHERE ended_at IS NOT NULL")
    # Unread studies expire as if their results were of now: nobody has been warned of it.
    op.execute(
        "UPDATE study SET result_s = (SELECT operating_s FROM maintenance) "
        "WHERE ended_at IS NOT NULL AND read_at IS NULL"
    )
    _replace_indexes(" AND expired_at IS NULL")
    for name, flag in EXPIRED.items():
        _index(name, "read_at IS NULL AND expired_at IS NOT NULL", flag)
    op.drop_index("ix_study_images_removed_at_ended_at", "study")
    op.create_index(
        "ix_study_images_removed_at_kept_from_s", "study", ["images_removed_at", "kept_from_s"]
    )


def _add_columns() -> None:
    """The operating time begins with the seconds since 1970, and so do the ages of studies."""
    connection = op.get_bind()
    now = connection.scalars(sa.select(db_now())).one()
    maintenance = sa.table(
        "maintenance",
        sa.column("id", sa.Integer),
        sa.column("operating_s", sa.BigInteger),
        sa.column("read_at", UtcDateTime()),
    )
    seconds = int(now.timestamp())
    connection.execute(sa.insert(maintenance).values(id=1, operating_s=seconds, read_at=now))
    op.add_column("preview", sa.Column("expires_s", sa.BigInteger()))
    op.add_column("study", sa.Column("expired_at", UtcDateTime()))
    op.add_column("study", sa.Column("result_s", sa.BigInteger()))
    op.add_column(
        "study", sa.Column("kept_from_s", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column(
        "study",
        sa.Column("removal_pending", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    since = "coalesce(ended_at, last_received_at)"
    epoch = f"CAST(strftime('%s', {since}) AS INTEGER)"
    if connection.dialect.name == "postgresql":
        epoch = f"CAST(extract(epoch FROM {since}) AS bigint)"
    study = sa.text(
        f"UPDATE study SET kept_from_s = CASE WHEN {epoch} < :now THEN {epoch} ELSE :now END"  # noqa: S608 - no values
    )
    connection.execute(study, {"now": seconds})


def _replace_indexes(condition: str) -> None:
    for name, flag in UNREAD.items():
        op.drop_index(name, "study")
        _index(name, f"read_at IS NULL{condition}", flag)


def _index(name: str, condition: str, flag: str) -> None:
    op.create_index(
        name,
        "study",
        COLUMNS,
        sqlite_where=sa.text(condition + (f" AND {flag} IS 1" if flag else "")),
        postgresql_where=sa.text(condition + (f" AND {flag} IS true" if flag else "")),
    )


def downgrade() -> None:
    op.drop_index("ix_study_images_removed_at_kept_from_s", "study")
    op.create_index(
        "ix_study_images_removed_at_ended_at", "study", ["images_removed_at", "ended_at"]
    )
    for name in EXPIRED:
        op.drop_index(name, "study")
    _replace_indexes("")
    op.drop_index("ix_study_removal_pending", "study")
    for column in ("removal_pending", "kept_from_s", "result_s", "expired_at"):
        op.drop_column("study", column)
    op.drop_column("preview", "expires_s")
    op.drop_table("maintenance")
