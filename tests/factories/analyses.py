"""Studies as a worker leaves them: analysed with known findings, or refused."""

from db import job_lifecycle, studies
from db.ingest import ingest
from db.studies import StudyEvent
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from tests.factories.instances import ROOT, arrival, make_slice

POINT = ImagePoint("1.2", "1.3", "1.4", None, 10.5, 20.25, -1, 2, 3)
CANAL = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
RECESS = FindingKey(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L1_L2)
NORMAL, MODERATE, SEVERE, UNSURE = (
    (0.9, 0.1, 0.0),
    (0.1, 0.8, 0.1),
    (0.0, 0.1, 0.9),
    (0.4, 0.3, 0.3),
)


def bundle(trained_on):
    return BundleIdentity(f"b-{trained_on}", "1", "ab" * 32, trained_on, "1")


def analysed(
    site,
    number,
    exceptions=None,
    trained_on=TrainedOn.CLINICAL,
    unassessed=(),
    poorly_shown=(),
    **words,
):
    """A study whose 25 findings are normal but for the exceptions."""
    ingest(site.database, site.store, arrival(make_slice(study=number)))
    findings = findings_with(exceptions or {}, unassessed, poorly_shown)
    end(site, number, StudyEvent.ANALYSED, findings=findings, bundle=bundle(trained_on), **words)


def findings_with(exceptions, unassessed=(), poorly_shown=()):
    return [
        Finding(*key.parts, reason="no axial T2")
        if key in unassessed
        else Finding(
            *key.parts,
            probabilities=exceptions.get(key, NORMAL),
            point=POINT,
            shows=0.4 if key in poorly_shown else 0.5,
        )
        for key in ALL_FINDINGS
    ]


def end(site, number, event, **outcome):
    with site.database.transaction() as session:
        study = studies.find(session, f"{ROOT}.{number}")
        studies.complete(session, study.id)
        job_lifecycle.end_analysis(
            session, job_lifecycle.claim_analysis(session, lease_s=10), event, **outcome
        )
