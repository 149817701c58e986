"""Studies in every state, for the order of the worklist."""

import random
from datetime import UTC, datetime, timedelta

from db.models import Bundle, FindingRow, Patient, Study, StudyState
from lumbar.spine.anatomy import ALL_FINDINGS, Severity
from lumbar.spine.provenance import TrainedOn
from tests.factories.analyses import CANAL
from tests.factories.instances import ROOT

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def fill(database, seed, count=60):
    """Studies of every kind, some received in the same second, written without an analysis."""
    rng = random.Random(seed)
    with database.transaction() as session:
        bundles = {
            trained_on: Bundle(
                name=trained_on,
                version="1",
                weights_sha256="",
                trained_on=trained_on,
                preprocessing_version="1",
            )
            for trained_on in (TrainedOn.CLINICAL, TrainedOn.SYNTHETIC)
        }
        session.add_all(bundles.values())
        for n in range(count):
            patient = Patient(
                issuer="A", patient_identifier=f"P{n}", name=f"Name{n}^Given", birth_date="", sex=""
            )
            session.add(patient)
            session.flush()
            state = rng.choice(
                [StudyState.ANALYSED, StudyState.ANALYSED, StudyState.FAILED, StudyState.QUEUED]
            )
            study = Study(
                study_instance_uid=f"{ROOT}.{n}",
                patient_id=patient.id,
                accession_number=f"A{n}",
                study_date="",
                description="",
                scanner=rng.choice(["one", "two"]),
                stat=rng.random() < 0.1,
                state=state,
                last_received_at=NOW - timedelta(hours=rng.choice([0, 1, 3, 5, 7, 9, 20, 100])),
                ended_at=NOW,
                read_at=NOW if rng.random() < 0.2 else None,
            )
            session.add(study)
            session.flush()
            if state is StudyState.ANALYSED:
                study.trained_on = rng.choice(list(bundles))
                worst = rng.choice(list(Severity))
                study.severe = worst is Severity.SEVERE
                session.add_all(
                    FindingRow(
                        study_id=study.id,
                        revision=1,
                        condition=key.condition,
                        level=key.level,
                        severity=worst if key == CANAL else Severity.NORMAL_MILD,
                        normal_mild=0.8,
                        moderate=0.1,
                        severe=0.1,
                        shows=0.9,
                        bundle_id=bundles[study.trained_on].id,
                    )
                    for key in ALL_FINDINGS
                )
