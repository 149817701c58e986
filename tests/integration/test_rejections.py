"""Rejection notes take the images they name out of the analysis, in whatever order they arrive."""

import pytest
from sqlalchemy import select, update

from db import quarantine, retention, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import Instance, Job, JobKind, JobState, QuarantineReason, Study, StudyState
from db.read_models import worklist
from db.read_models.worklist_rows import Ranking
from db.stored_instances import NO_ONE, IngestResult, TrustedSources
from lumbar.errors import Permanent
from tests.factories.ages import ended
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.objects import make_note, make_secondary_capture

FROM_PACS = TrustedSources(rejections=frozenset({"PACS"}))
QUALITY, SAFETY, WORKLIST, RETENTION = "113001", "113037", "113038", "113039"
UID = f"{ROOT}.1"


def send(site, dataset, source="MR1", trusted=FROM_PACS):
    return ingest(site.database, site.store, arrival(dataset, source), trusted)


def send_images(site, numbers=(1, 2, 3)):
    for number in numbers:
        send(site, make_slice(number=number))


def reject(site, numbers, title=QUALITY, source="PACS", **elements):
    return send(site, make_note(title, [make_slice(number=n) for n in numbers], **elements), source)


def study_of(site):
    with site.database.reading() as session:
        return studies.find(session, UID)


def read(site):
    """The numbers of the images that an analysis reads."""
    with site.database.reading() as session:
        rows = studies.images_in_use(session, studies.find(session, UID).id)
    return [int(row.sop_instance_uid.rpartition(".")[2]) for row in rows]


def end(site, state=StudyState.ANALYSED, *, read=False):
    with site.database.transaction() as session:
        session.execute(update(Study).values(ended(state=state, read=read)))


def complete(site):
    with site.database.transaction() as session:
        return studies.complete(session, studies.find(session, UID).id)


def listed(site):
    with site.database.reading() as session:
        return [row.study_instance_uid for row in worklist.worklist(session, Ranking()).rows]


@pytest.mark.parametrize("title", [QUALITY, SAFETY, WORKLIST])
def test_rejected_images_are_not_read_and_the_study_is_read_again(site, title):
    send_images(site)
    end(site)
    assert reject(site, [1, 3], title) is IngestResult.NEW
    assert read(site) == [2]
    study = study_of(site)
    assert (study.state, study.revision) == (StudyState.RECEIVING, 2)
    rejected = quarantine.list_quarantined(site)
    assert {row.reason for row in rejected} <= {
        QuarantineReason.REJECTED_QUALITY,
        QuarantineReason.REJECTED_SAFETY,
        QuarantineReason.REJECTED_WORKLIST,
    }
    assert len(rejected) == 2


def test_a_rejection_does_not_make_the_study_wait_again(site):
    send_images(site)
    end(site)
    before = study_of(site).last_received_at
    reject(site, [1])
    assert study_of(site).last_received_at == before


def test_images_that_arrive_after_the_note_are_not_read_either(site):
    send_images(site, [1])
    reject(site, [2])
    assert send(site, make_slice(number=2)) is IngestResult.QUARANTINED
    assert send(site, make_slice(number=3)) is IngestResult.NEW
    assert read(site) == [1, 3]


def test_a_note_that_arrives_first_counts(site):
    reject(site, [1])
    assert study_of(site).state is StudyState.NO_IMAGES
    send_images(site)
    assert read(site) == [2, 3]
    assert (study_of(site).state, study_of(site).revision) == (StudyState.RECEIVING, 1)


def test_a_study_of_which_nothing_is_left_leaves_the_worklist_with_the_reason(site):
    send_images(site)
    end(site)
    assert listed(site) == [UID]
    reject(site, [1, 2, 3])
    assert complete(site)
    study = study_of(site)
    assert study.state is StudyState.NO_IMAGES
    assert "rejected for quality reasons" in study.reason
    assert listed(site) == []
    with site.database.reading() as session:
        assert session.scalars(select(Job)).all() == []
    send(site, make_slice(number=4))
    assert (study_of(site).state, study_of(site).revision) == (StudyState.RECEIVING, 2)


def test_a_running_analysis_of_rejected_images_is_cancelled(site):
    send_images(site)
    complete(site)
    reject(site, [1])
    with site.database.reading() as session:
        (job,) = session.scalars(select(Job).where(Job.kind == JobKind.ANALYSE))
    assert job.state is JobState.CANCELLED


def test_new_images_of_another_patient_are_used_once_the_wrong_ones_are_rejected(site):
    send_images(site)
    end(site)
    for number in (11, 12):
        other = make_slice(number=number, PatientID="P9", PatientName="Other^Nine")
        assert send(site, other) is IngestResult.QUARANTINED
    reject(site, [1, 2, 3], WORKLIST)
    study = study_of(site)
    assert (study.patient.patient_identifier, study.revision) == ("P9", 2)
    assert read(site) == [11, 12]


@pytest.mark.parametrize("source", ["MR1", "OTHER", ""])
def test_a_note_from_a_source_that_is_not_named_changes_nothing(site, source):
    send_images(site)
    assert reject(site, [1], source=source) is IngestResult.NEW
    assert read(site) == [1, 2, 3]


def test_a_note_of_another_patient_changes_nothing(site):
    send_images(site)
    assert reject(site, [1], PatientID="OTHER") is IngestResult.QUARANTINED
    assert read(site) == [1, 2, 3]


def test_a_note_does_not_reach_another_study(site):
    send(site, make_slice(study=2))
    send_images(site)
    note = make_note(QUALITY, [make_slice(number=1)])
    note.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = f"{ROOT}.2"
    send(site, note, "PACS")
    assert read(site) == [1, 2, 3]


def test_a_key_object_selection_with_another_title_rejects_nothing(site):
    send_images(site)
    reject(site, [1], title="113000")  # of interest
    assert read(site) == [1, 2, 3]


def test_a_note_sent_again_changes_nothing(site):
    send_images(site)
    reject(site, [1])
    revision = study_of(site).revision
    assert reject(site, [1]) is IngestResult.DUPLICATE
    assert (read(site), study_of(site).revision) == ([2, 3], revision)


def test_an_expired_retention_releases_the_images_and_keeps_the_results(site):
    send_images(site)
    end(site)
    assert reject(site, [1, 2], RETENTION) is IngestResult.NEW
    study = study_of(site)
    assert (study.state, study.revision) == (StudyState.ANALYSED, 1)
    assert read(site) == [1, 2, 3]
    assert retention.remove_images(site) == 0  # nobody has read it
    end(site, read=True)
    assert retention.remove_images(site) == 1
    with site.database.reading() as session:
        removed = {
            row.sop_instance_uid.rpartition(".")[2]: row.removed_at is not None
            for row in session.scalars(select(Instance).where(Instance.is_image))
        }
    assert removed == {"1": True, "2": True, "3": False}
    assert study_of(site).state is StudyState.ANALYSED
    assert study_of(site).images_removed_at is None  # the third is removed in its own time
    assert retention.remove_images(site) == 0


def test_an_operator_may_release_a_rejected_image(site):
    send_images(site)
    reject(site, [1])
    (row,) = quarantine.list_quarantined(site)
    quarantine.release(site, row.id, Participant("operator"))
    assert read(site) == [1, 2, 3]
    send(site, make_slice(number=1))
    assert read(site) == [1, 2, 3]


def test_a_note_that_is_dropped_no_longer_counts(site):
    send_images(site, [1])
    reject(site, [2], PatientID="OTHER")
    (row,) = quarantine.list_quarantined(site)
    quarantine.drop(site, row.id, Participant("operator"))
    assert quarantine.list_quarantined(site) == []
    assert not site.store.path(row.id).exists()


def test_a_rejected_image_sent_again_by_its_scanner_stays_rejected(site):
    send_images(site)
    reject(site, [1])
    assert send(site, make_slice(number=1)) is IngestResult.DUPLICATE
    assert send(site, make_slice(number=1, fill=77)) is IngestResult.QUARANTINED
    assert read(site) == [2, 3]


def test_rejected_other_objects_do_not_have_the_study_read_again(site):
    send_images(site)
    capture = make_secondary_capture()
    send(site, capture)
    end(site)
    send(site, make_note(QUALITY, [capture]), "PACS")
    assert study_of(site).state is StudyState.ANALYSED
    (row,) = quarantine.list_quarantined(site)
    assert row.sop_instance_uid == capture.SOPInstanceUID


def test_another_patients_image_cannot_be_released_into_the_study(site):
    send_images(site, [1])
    send(site, make_slice(number=2, PatientID="OTHER"), trusted=NO_ONE)
    (row,) = quarantine.list_quarantined(site)
    with pytest.raises(Permanent, match="another patient"):
        quarantine.release(site, row.id, Participant("operator"))
