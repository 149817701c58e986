"""Deliveries that wait for days, are confirmed, and whose destinations are held"""

import sqlalchemy as sa
from alembic import op

from db.types import UtcDateTime

revision = "0010"
down_revision = "0009"

LEASED = ("job", "preview")


def upgrade() -> None:
    for table in LEASED:
        op.add_column(table, sa.Column("faults", sa.Integer(), nullable=False, server_default="0"))
        op.add_column(table, sa.Column("first_failed_at", UtcDateTime()))
        op.add_column(table, sa.Column("first_failed_s", sa.BigInteger()))
    op.add_column("job", sa.Column("sends", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("sent_status", sa.String(16)))
    op.add_column("job", sa.Column("sent_at", UtcDateTime()))
    op.add_column("job", sa.Column("failed_at", UtcDateTime()))
    op.add_column(
        "job", sa.Column("unlisted", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index("ix_job_destination", "job", ["destination", "state"])

    # Every earlier delivery was a peer's success that nobody had asked about.
    op.add_column(
        "delivery",
        sa.Column("outcome", sa.String(64), nullable=False, server_default="accepted"),
    )

    with op.batch_alter_table("delivery") as delivery:
        delivery.alter_column("delivered_at", existing_type=UtcDateTime(), nullable=True)

    op.add_column("report", sa.Column("number", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("report", sa.Column("content_sha256", sa.String(64)))
    op.add_column("report", sa.Column("inputs_sha256", sa.String(64)))
    op.add_column("report", sa.Column("predecessor_ids", sa.JSON()))
    with op.batch_alter_table("report") as report:
        report.alter_column("sha256", existing_type=sa.String(64), nullable=True)
        report.alter_column("file", existing_type=sa.String(), nullable=True)

    op.create_table(
        "held_destination",
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("held_since", UtcDateTime(), nullable=False),
        sa.Column("probe_after", UtcDateTime(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_held_destination")),
    )


def downgrade() -> None:
    op.drop_table("held_destination")
    op.execute("DELETE FROM report WHERE file IS NULL")
    with op.batch_alter_table("report") as report:
        report.alter_column("sha256", existing_type=sa.String(64), nullable=False)
        report.alter_column("file", existing_type=sa.String(), nullable=False)
        for column in ("predecessor_ids", "inputs_sha256", "content_sha256", "number"):
            report.drop_column(column)
    op.execute("DELETE FROM delivery WHERE delivered_at IS NULL")
    with op.batch_alter_table("delivery") as delivery:
        delivery.alter_column("delivered_at", existing_type=UtcDateTime(), nullable=False)
    op.drop_column("delivery", "outcome")
    op.drop_index("ix_job_destination", "job")
    for column in ("unlisted", "failed_at", "sent_at", "sent_status", "sends"):
        op.drop_column("job", column)
    for table in LEASED:
        op.drop_column(table, "first_failed_s")
        op.drop_column(table, "first_failed_at")
        op.drop_column(table, "faults")
