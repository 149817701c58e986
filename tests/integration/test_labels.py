"""Reviews by readers as labels, in the layout that `lumbar train` reads."""

from db import reviews, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import FindingRow
from db.read_models import reviewed_labels
from db.studies import StudyEvent
from lumbar.spine.anatomy import ALL_FINDINGS, FindingKey, Level, Role, Severity
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import TrainedOn
from lumbar.training.rsna_dataset import read_data_set
from tests.factories.analyses import CANAL, SEVERE, analysed, bundle, end
from tests.factories.instances import ROOT, arrival, make_slice

UPPER = FindingKey(CANAL.condition, Level.L1_L2)


def point(number):
    return ImagePoint(f"{ROOT}.1.1", "1.3", f"{ROOT}.1.1.{number}", None, 3.25, 4.5, 0, 0, 0)


def reviewed(site, key, severity):
    with site.database.transaction() as session:
        study = studies.find(session, f"{ROOT}.1")
        reviews.add_review(
            session, reviews.finding_ids(session, study.id)[key], severity, "", Participant("anna")
        )


def study_with_points(site):
    for number in (10, 9):
        ingest(site.database, site.store, arrival(make_slice(number=number)))
    findings = [
        Finding(*key.parts, probabilities=SEVERE, point=point(9), shows=0.9) for key in ALL_FINDINGS
    ]
    end(site, 1, StudyEvent.ANALYSED, findings=findings, bundle=bundle(TrainedOn.CLINICAL))


def test_only_reviewed_findings_are_labels_and_the_last_review_counts(site, tmp_path):
    study_with_points(site)
    reviewed(site, CANAL, Severity.SEVERE)
    reviewed(site, CANAL, Severity.MODERATE)
    reviewed(site, UPPER, Severity.NORMAL_MILD)
    with site.database.reading() as session:
        labels = reviewed_labels.labels(session)
    for name, text in labels.tables.items():
        (tmp_path / name).write_text(text)
    for layout, file in labels.images.items():
        (tmp_path / layout).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / layout).write_bytes(site.store.path(file).read_bytes())
    (study,) = read_data_set(tmp_path).studies
    assert study.severities == {CANAL: Severity.MODERATE, UPPER: Severity.NORMAL_MILD}
    assert study.series == {f"{ROOT}.1.1": Role.SAGITTAL_T2}
    annotation = study.annotations[CANAL]
    assert (annotation.x, annotation.y) == (3.25, 4.5)
    image = study.folder / annotation.series / f"{annotation.instance}.dcm"
    assert f"{ROOT}.1.1.9".encode() in image.read_bytes()
    assert (labels.studies, labels.findings, len(labels.images)) == (1, 2, 2)


def test_a_review_of_an_earlier_revision_stays_a_label(site):
    study_with_points(site)
    reviewed(site, CANAL, Severity.MODERATE)
    ingest(site.database, site.store, arrival(make_slice(number=11)))
    analysed_again = [
        Finding(*key.parts, probabilities=SEVERE, point=point(9), shows=0.9) for key in ALL_FINDINGS
    ]
    end(site, 1, StudyEvent.ANALYSED, findings=analysed_again, bundle=bundle(TrainedOn.CLINICAL))
    with site.database.reading() as session:
        assert session.query(FindingRow).filter(FindingRow.superseded.is_(True)).count() == 25
        assert reviewed_labels.labels(session).findings == 1


def test_without_a_review_there_is_no_label(site):
    analysed(site, 1)
    with site.database.reading() as session:
        assert (
            reviewed_labels.labels(session).findings,
            reviewed_labels.labels(session).images,
        ) == (0, {})
