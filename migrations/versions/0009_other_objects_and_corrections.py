"""What instances state of patient and study, and the instances that rejection notes name"""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

BATCH = 1000  # studies
# The attributes that a study's row holds, by the names of lumbar.study_attributes
HELD = {
    "patient_identifier": "patient.patient_identifier",
    "patient_name": "patient.name",
    "birth_date": "patient.birth_date",
    "sex": "patient.sex",
    "accession_number": "study.accession_number",
    "study_date": "study.study_date",
    "study_time": "study.study_time",
    "study_description": "study.description",
}
# Of the quarantined instances, which are few among all
INDEXES = {
    "ix_instance_quarantined_received_at": "received_at",
    "ix_instance_quarantined": "quarantined",
}


def upgrade() -> None:
    op.create_table(
        "stated_attributes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_stated_attributes_study_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stated_attributes")),
        sa.UniqueConstraint(
            "study_id", "digest", name=op.f("uq_stated_attributes_study_id_digest")
        ),
    )
    op.add_column("instance", sa.Column("attributes_id", sa.Integer()))
    op.add_column(
        "study", sa.Column("corrected_revision", sa.Integer(), nullable=False, server_default="1")
    )
    op.create_table(
        "rejection",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("note_id", sa.Integer()),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("in_force", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["note_id"], ["instance.id"], name=op.f("fk_rejection_note_id")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_rejection_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejection")),
        sa.UniqueConstraint(
            "note_id", "sop_instance_uid", name=op.f("uq_rejection_note_id_sop_instance_uid")
        ),
    )
    op.create_index(op.f("ix_rejection_study_id"), "rejection", ["study_id"])
    for name, column in INDEXES.items():
        quarantined = sa.text("quarantined IS NOT NULL")
        op.create_index(
            name,
            "instance",
            [column],
            sqlite_where=quarantined,
            postgresql_where=quarantined,
        )
    _state_attributes()


def _state_attributes() -> None:
    """The images in use state what their study's row was made from; others are not known."""
    connection, last = op.get_bind(), 0
    columns = ", ".join(f"{source} AS {name}" for name, source in HELD.items())
    statement = sa.text(
        f"SELECT study.id AS id, {columns} FROM study"  # noqa: S608 - only the names above
        " JOIN patient ON patient.id = study.patient_id"
        " WHERE study.id > :last ORDER BY study.id LIMIT :batch"
    )
    stated = sa.table(
        "stated_attributes",
        sa.column("study_id", sa.Integer),
        sa.column("digest", sa.String),
        sa.column("values", sa.JSON),
    )
    while rows := connection.execute(statement, {"last": last, "batch": BATCH}).mappings().all():
        last = rows[-1]["id"]
        connection.execute(
            sa.insert(stated),
            [
                {"study_id": row["id"], "values": values, "digest": _digest(values)}
                for row in rows
                for values in [{name: row[name] for name in HELD}]
            ],
        )
    connection.execute(
        sa.text(
            "UPDATE instance SET attributes_id = (SELECT stated_attributes.id"
            " FROM stated_attributes JOIN series ON series.study_id = stated_attributes.study_id"
            " WHERE series.id = instance.series_id) WHERE quarantined IS NULL"
        )
    )


def _digest(values: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, "instance")
    op.drop_table("rejection")
    op.drop_column("study", "corrected_revision")
    op.drop_column("instance", "attributes_id")
    op.drop_table("stated_attributes")
