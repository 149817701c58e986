"""Indexes for the worklist, search keys, and user accounts"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.orm import Session

from db.read_models.study_search import words_of
from db.types import UtcDateTime, db_now

revision = "0005"
down_revision = "0004"

WORD = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    # SQLite adds NOT NULL columns only with a default; the code writes every value itself.
    op.add_column("study", sa.Column("scanner", sa.String(64), nullable=False, server_default=""))
    op.add_column(
        "study", sa.Column("severe", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("study", sa.Column("trained_on", sa.String(64)))
    op.add_column("study", sa.Column("read_at", UtcDateTime()))
    long_ago = sa.text("'1970-01-01 00:00:00.000000'")
    op.add_column(
        "finding", sa.Column("found_at", UtcDateTime(), nullable=False, server_default=long_ago)
    )
    op.create_table(
        "search_key",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("word", WORD, nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_search_key_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_key")),
        sa.UniqueConstraint("word", "study_id", name=op.f("uq_search_key_word_study_id")),
    )
    op.create_index(op.f("ix_search_key_study_id"), "search_key", ["study_id"])
    op.create_table(
        "audit_forward",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("last_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_forward")),
    )
    op.create_table(
        "tombstone",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tombstone")),
    )
    op.create_index(op.f("ix_tombstone_study_instance_uid"), "tombstone", ["study_instance_uid"])
    _create_user_tables()
    _fill()
    op.drop_index("ix_finding_question", "finding")
    for name, columns in _CURRENT.items():
        op.create_index(
            name,
            "finding",
            [*columns, "found_at", "id"],
            sqlite_where=sa.text("superseded IS 0"),
            postgresql_where=sa.text("superseded IS false"),
        )
    for table, moment in _MOMENTS.items():
        op.create_index(op.f(f"ix_{table}_{moment}"), table, [moment])
    op.create_index("ix_study_last_received_at_id", "study", ["last_received_at", "id"])
    op.create_index("ix_study_scanner_last_received_at", "study", ["scanner", "last_received_at"])
    op.create_index("ix_study_scanner_ended_at", "study", ["scanner", "ended_at"])
    for name, flag in _UNREAD.items():
        op.create_index(
            name,
            "study",
            ["last_received_at", "id"],
            sqlite_where=sa.text("read_at IS NULL" + (f" AND {flag} IS 1" if flag else "")),
            postgresql_where=sa.text("read_at IS NULL" + (f" AND {flag} IS true" if flag else "")),
        )


_CURRENT = {
    "ix_finding_question": ["severity", "condition", "level"],
    "ix_finding_severity_found_at": ["severity"],
    "ix_finding_found_at": [],
}
# For the figures of the last hour.
_MOMENTS = {"instance": "received_at", "delivery": "delivered_at"}
_UNREAD = {
    "ix_study_unread": None,
    "ix_study_unread_stat": "stat",
    "ix_study_unread_severe": "severe",
}


def _create_user_tables() -> None:
    op.create_table(
        "user_account",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("disabled_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_account")),
        sa.UniqueConstraint("name", name=op.f("uq_user_account_name")),
    )
    for table, columns in {
        "web_session": (
            sa.Column("csrf_token", sa.String(64), nullable=False),
            sa.Column("last_used_at", UtcDateTime(), nullable=False),
        ),
        "api_token": (
            sa.Column("name", sa.String(64), nullable=False),
            sa.Column("scopes", sa.String(64), nullable=False),
            sa.Column("expires_at", UtcDateTime()),
            sa.Column("revoked_at", UtcDateTime()),
        ),
    }.items():
        op.create_table(
            table,
            sa.Column("id", sa.Integer(), nullable=False),
            sa.Column("token_sha256", sa.String(64), nullable=False),
            sa.Column("user_id", sa.Integer(), nullable=False),
            *columns,
            sa.Column("created_at", UtcDateTime(), nullable=False),
            sa.ForeignKeyConstraint(
                ["user_id"], ["user_account.id"], name=op.f(f"fk_{table}_user_id")
            ),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
            sa.UniqueConstraint("token_sha256", name=op.f(f"uq_{table}_token_sha256")),
        )
        op.create_index(op.f(f"ix_{table}_user_id"), table, ["user_id"])
    op.create_table(
        "sign_in_failure",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("happened_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_failure")),
    )
    op.create_index("ix_sign_in_failure_who_happened_at", "sign_in_failure", ["who", "happened_at"])
    op.create_index(op.f("ix_sign_in_failure_happened_at"), "sign_in_failure", ["happened_at"])


def _fill() -> None:
    """Fills the new columns and the search keys for the existing rows."""
    study, finding, bundle, patient = (
        sa.table(
            "study",
            *map(
                sa.column,
                ("id", "accession_number", "patient_id", "severe", "trained_on", "ended_at"),
            ),
        ),
        sa.table(
            "finding",
            *map(sa.column, ("study_id", "superseded", "severity", "bundle_id", "found_at")),
        ),
        sa.table("bundle", *map(sa.column, ("id", "trained_on"))),
        sa.table("patient", *map(sa.column, ("id", "name", "patient_identifier"))),
    )
    key = sa.table("search_key", sa.column("word"), sa.column("study_id"))
    with Session(op.get_bind()) as session:
        ended_at = (
            sa.select(study.c.ended_at).where(study.c.id == finding.c.study_id).scalar_subquery()
        )
        session.execute(sa.update(finding).values(found_at=sa.func.coalesce(ended_at, db_now())))
        of_study = (finding.c.study_id == study.c.id) & (finding.c.superseded.is_(sa.false()))
        session.execute(
            sa.update(study).values(
                severe=sa.exists().where(of_study, finding.c.severity == "severe"),
                trained_on=sa.select(sa.func.max(bundle.c.trained_on))
                .where(of_study, bundle.c.id == finding.c.bundle_id)
                .scalar_subquery(),
            )
        )
        query = sa.select(
            study.c.id, study.c.accession_number, patient.c.patient_identifier, patient.c.name
        )
        for study_id, accession, number, name in session.execute(
            query.where(patient.c.id == study.c.patient_id)
        ).all():
            rows = [
                {"study_id": study_id, "word": word}
                for word in sorted(words_of(accession, number, name))
            ]
            if rows:
                session.execute(sa.insert(key), rows)
        session.flush()


def downgrade() -> None:
    for name in _UNREAD:
        op.drop_index(name, "study")
    op.drop_index("ix_study_scanner_ended_at", "study")
    op.drop_index("ix_study_scanner_last_received_at", "study")
    op.drop_index("ix_study_last_received_at_id", "study")
    for table, moment in _MOMENTS.items():
        op.drop_index(op.f(f"ix_{table}_{moment}"), table)
    for name in _CURRENT:
        op.drop_index(name, "finding")
    op.create_index(
        "ix_finding_question", "finding", ["superseded", "severity", "condition", "level"]
    )
    people = ("sign_in_failure", "api_token", "web_session", "user_account")
    for table in (*people, "tombstone", "audit_forward", "search_key"):
        op.drop_table(table)
    op.drop_column("finding", "found_at")
    for column in ("read_at", "trained_on", "severe", "scanner"):
        op.drop_column("study", column)
