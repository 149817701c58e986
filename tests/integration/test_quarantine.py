"""What is quarantined is listed with the reason, and released or dropped."""

import pytest
from sqlalchemy import select

from db import quarantine, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import AuditEvent, Instance, QuarantineReason, StudyState
from db.operator_actions import correct
from db.read_models.study_detail import study_detail
from db.registrar import Registrar
from lumbar.errors import NotFound, Permanent
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.quarantine import send, send_corrected, send_unregistrable

UID = f"{ROOT}.1"


def listed(site, **only):
    return quarantine.list_quarantined(site, **only)


def reasons(site):
    return [row.reason for row in listed(site)]


def files(site):
    return {path.name for path in site.store.path("instances").rglob("*.dcm")}


def events(site):
    with site.database.reading() as session:
        return [row.event for row in session.scalars(select(AuditEvent).order_by(AuditEvent.id))]


def detail(site, uid=UID):
    with site.database.reading() as session:
        return study_detail(session, uid, site.ranking)


@pytest.fixture
def store(site):
    return site.database, site.store


def test_the_newest_is_listed_first_with_what_it_states(site, store):
    send_corrected(*store, study=1, images=2, again=1)
    send(*store, study=1, number=2, fill=99)
    send(*store, study=2)
    send(*store, study=2, number=3, PatientID="THIRD")
    rows = listed(site)
    assert [(row.study_instance_uid, row.reason) for row in rows] == [
        (f"{ROOT}.2", QuarantineReason.OTHER_PATIENT),
        (UID, QuarantineReason.OTHER_CONTENT),
        (UID, QuarantineReason.CORRECTION),
    ]
    newer = rows[-1]
    assert (newer.patient_identifier, newer.patient_name) == ("OTHER", "Right^Rita")
    assert (newer.accession_number, newer.source) == ("A-OTHER", "PACS")
    assert newer.has_file
    assert [row.id for row in listed(site, study_instance_uid=UID)] == [row.id for row in rows[1:]]
    assert listed(site, limit=2) == rows[:2]
    with site.database.reading() as session:
        assert quarantine.count(session) == 3


def test_a_file_that_cannot_be_registered_is_listed_released_and_dropped(site, store):
    send_unregistrable(*store)
    (row,) = listed(site)
    assert row.study_instance_uid == UID
    assert row.reason
    assert listed(site, study_instance_uid=UID) == [row]
    assert listed(site, study_instance_uid=f"{ROOT}.2") == []
    quarantine.release(site, row.id, Participant("anna"))
    assert listed(site) == []
    Registrar(site).register_arrived()
    assert [again.id for again in listed(site)] == [row.id]
    quarantine.drop(site, row.id, Participant("anna"))
    assert listed(site) == []
    assert events(site) == [
        "instance.unregistrable",
        "instance.released",
        "instance.unregistrable",
        "instance.dropped",
    ]


def test_a_released_copy_replaces_the_one_in_use_and_the_study_is_read_again(site, store):
    send(*store)
    send(*store, fill=99)
    (row,) = listed(site)
    quarantine.release(site, row.id, Participant("anna"))
    assert reasons(site) == [QuarantineReason.REPLACED]
    assert [in_use.sop_instance_uid for in_use in listed(site)] == [row.sop_instance_uid]
    assert detail(site).study.images == 1
    with pytest.raises(NotFound):
        quarantine.release(site, row.id, Participant("anna"))


def test_what_states_another_patient_is_not_released(site, store):
    send_corrected(*store, study=1, images=2, again=1)
    send(*store, number=3, PatientID="THIRD")
    for row in listed(site):
        with pytest.raises(Permanent, match="another patient"):
            quarantine.release(site, row.id, Participant("anna"))
    assert len(listed(site)) == 2


def test_a_dropped_instance_leaves_no_row_and_no_file(site, store):
    send(*store)
    in_use = files(site)
    send(*store, fill=99)
    (row,) = listed(site)
    quarantine.drop(site, row.id, Participant("anna"))
    assert listed(site) == []
    assert files(site) == in_use
    assert events(site)[-1] == "instance.dropped"
    with pytest.raises(NotFound, match="lumbar quarantine list"):
        quarantine.drop(site, row.id, Participant("anna"))


def test_an_instance_that_is_sent_again_while_it_is_dropped_keeps_its_file(
    site, store, monkeypatch
):
    send(*store)
    send(*store, fill=99)
    (row,) = listed(site)
    remove = quarantine._remove

    def sent_again_first(*arguments):
        send(*store, fill=99)
        remove(*arguments)

    monkeypatch.setattr(quarantine, "_remove", sent_again_first)
    quarantine.drop(site, row.id, Participant("anna"))
    (again,) = listed(site)
    assert again.has_file
    with site.database.reading() as session:
        file = session.get_one(Instance, int(again.id.partition("-")[0])).file
    assert site.store.path(file).exists()


def test_a_drop_that_was_interrupted_is_completed_by_another(site, store, monkeypatch):
    send(*store)
    send(*store, fill=99)
    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "_remove", lambda *arguments: None)  # the process is killed
        quarantine.drop(site, listed(site)[0].id, Participant("anna"))
    (row,) = listed(site)
    assert not row.has_file
    with pytest.raises(Permanent, match="send it again"):
        quarantine.release(site, row.id, Participant("anna"))
    quarantine.drop(site, row.id, Participant("anna"))
    assert listed(site) == []
    assert len(files(site)) == 1


def test_an_unknown_id_is_refused(site):
    for unknown in ("1", "9" * 12, "../instances/x.dcm", "x.dcm", "", "٣", "-1"):
        for action in (quarantine.release, quarantine.drop):
            with pytest.raises(NotFound):
                action(site, unknown, Participant("anna"))


def test_a_correction_states_both_sides_and_how_far_it_has_got(site, store):
    send_corrected(*store, study=1, images=2, again=1)
    (waiting,) = detail(site).corrections
    assert not waiting.complete
    assert (waiting.replaced, waiting.images) == (1, 2)
    assert waiting.current.patient_identifier == "P1"
    assert waiting.attributes.patient_identifier == "OTHER"
    row = detail(site).study
    assert row.flags[0] == row.correction == str(waiting)
    assert "OTHER, Right^Rita, born 19700102, sex F, accession A-OTHER" in row.correction


def test_a_study_that_is_taken_over_has_another_patient_and_is_read_again(site, store):
    send_corrected(*store, study=1)
    with site.database.transaction() as session:
        study = studies.find(session, UID)
        studies.complete(session, study.id)
    with site.database.transaction() as session:
        correct(session, UID, Participant("anna"))
    after = detail(site)
    assert after.corrections == ()
    assert after.study.correction is None
    assert after.study.patient_identifier == "OTHER"
    assert after.study.patient_name == "Right^Rita"
    assert after.study.accession_number == "A-OTHER"
    assert after.study.images == 2
    assert after.study.state is StudyState.RECEIVING
    assert set(reasons(site)) == {QuarantineReason.REPLACED}
    with site.database.transaction() as session, pytest.raises(Permanent, match="no newer copies"):
        correct(session, UID, Participant("anna"))


def test_a_dropped_copy_no_longer_counts_for_a_correction(site, store):
    send_corrected(*store, study=1)
    quarantine.drop(site, listed(site)[0].id, Participant("anna"))
    assert [correction.complete for correction in detail(site).corrections] == [False]
    quarantine.drop(site, listed(site)[0].id, Participant("anna"))
    assert detail(site).corrections == ()


def test_a_source_without_a_name_is_listed(site):
    for elements in ({}, {"fill": 99}):
        ingest(site.database, site.store, arrival(make_slice(**elements), source=""))
    assert [row.source for row in listed(site)] == [""]
