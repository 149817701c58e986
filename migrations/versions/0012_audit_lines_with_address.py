"""Audit lines say from where, how it ended, and how often"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

AUDIT_EVENT = sa.table(
    "audit_event",
    sa.column("event", sa.String),
    sa.column("actor", sa.String),
    sa.column("address", sa.String),
    sa.column("outcome", sa.SmallInteger),
    sa.column("detail", sa.JSON),
)
EVENT, PEER = AUDIT_EVENT.c.event, AUDIT_EVENT.c.detail["peer"].as_string()


def upgrade() -> None:
    """Constant defaults: neither database rewrites the table for them."""
    op.add_column(
        "audit_event", sa.Column("address", sa.String(64), nullable=False, server_default="")
    )
    op.add_column(
        "audit_event", sa.Column("outcome", sa.SmallInteger(), nullable=False, server_default="0")
    )
    op.add_column(
        "audit_event", sa.Column("times", sa.Integer(), nullable=False, server_default="1")
    )
    # All other lines of earlier versions are about something that succeeded.
    address = sa.func.substr(sa.func.coalesce(PEER, ""), 1, 64)
    refused_peers = EVENT.in_(("connection.refused", "association.rejected"))
    for which, values in (
        (EVENT == "sign_in.refused", {"address": AUDIT_EVENT.c.actor, "actor": "", "outcome": 4}),
        (refused_peers, {"address": address, "outcome": 4}),
        (EVENT == "store.missing", {"outcome": 8}),
    ):
        op.execute(sa.update(AUDIT_EVENT).where(which).values(values))
    op.create_index(
        "ix_audit_event_refused",
        "audit_event",
        ["id"],
        sqlite_where=sa.text("outcome > 0"),
        postgresql_where=sa.text("outcome > 0"),
    )


def downgrade() -> None:
    op.drop_index("ix_audit_event_refused", "audit_event")
    refused = sa.update(AUDIT_EVENT).where(EVENT == "sign_in.refused")
    op.execute(refused.values(actor=AUDIT_EVENT.c.address))
    for column in ("times", "outcome", "address"):
        op.drop_column("audit_event", column)
