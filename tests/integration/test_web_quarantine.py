"""Corrections and quarantined instances on the page and in the API."""

import csv
import io
import re

import pytest
from markupsafe import escape

from db import quarantine, retention, reviews, studies
from db.audit import Participant
from db.ingest import ingest
from db.models import Study, UserRole
from db.stored_instances import TrustedSources
from db.studies import StudyEvent
from tests.factories.analyses import analysed, end
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.objects import make_note
from tests.factories.quarantine import send, send_corrected, send_object, send_unregistrable
from tests.integration.web_client import (
    WebClient,
    audit_rows,
    browser_client,
    row,
    sqlite_only,
    token_client,
)
from web.app import create_app

pytestmark = sqlite_only

UID = f"{ROOT}.1"
REJECTING = TrustedSources(rejections=frozenset({"MR1"}))


@pytest.fixture
def app(site):
    return create_app(site)


@pytest.fixture
def operator(app) -> WebClient:
    return browser_client(app, UserRole.OPERATOR)


@pytest.fixture
def viewer(app) -> WebClient:
    return browser_client(app, UserRole.VIEWER)


@pytest.fixture
def program(app) -> WebClient:
    return token_client(app, UserRole.OPERATOR)


@pytest.fixture
def store(site):
    return site.database, site.store


@pytest.fixture(params=["page", "api"])
def act(request, operator, program):
    """Corrects a study, or releases or drops an instance, by form or by API; returns the status."""

    def by_page(action: str, key: str) -> int:
        path = f"/studies/{key}/correct" if action == "correct" else f"/quarantine/{key}/{action}"
        response = operator.submit(path)
        assert response.status_code != 303 or "done=" in response.headers["location"]
        return 200 if response.status_code == 303 else response.status_code

    def by_api(action: str, key: str) -> int:
        method, path = {
            "correct": ("POST", f"/studies/{key}/correct"),
            "release": ("POST", f"/quarantined/{key}/release"),
            "drop": ("DELETE", f"/quarantined/{key}"),
        }[action]
        return program.request(method, f"/api/v1{path}").status_code

    return by_page if request.param == "page" else by_api


def words(response) -> str:
    """A page's text without its elements."""
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", response.text).split())


def ids(site, uid=UID):
    return [row.id for row in quarantine.list_quarantined(site, uid)]


def last(site):
    event, actor, study = audit_rows(site)[-1]
    assert actor.startswith("operator")
    return event, study


def test_a_study_is_taken_over(site, store, act):
    send_corrected(*store, study=1, again=1)
    assert act("correct", UID) == 409
    send_corrected(*store, study=1)
    assert act("correct", UID) == 200
    assert row(site, Study).patient.patient_identifier == "OTHER"
    assert last(site) == ("study.corrected", 1)
    assert act("correct", UID) == 409
    assert act("correct", "1.2.3") == 404


def test_an_instance_is_released_and_another_dropped(site, store, act):
    send(*store)
    send(*store, fill=99)
    (contradicting,) = ids(site)
    assert act("release", contradicting) == 200
    assert last(site) == ("instance.released", 1)
    assert act("release", contradicting) == 404
    (replaced,) = ids(site)
    assert replaced != contradicting
    assert act("drop", replaced) == 200
    assert last(site) == ("instance.dropped", 1)
    assert ids(site) == []
    assert act("drop", replaced) == 404


def test_an_instance_that_states_another_patient_is_not_released(site, store, act):
    send(*store)
    send(*store, number=2, PatientID="OTHER")
    assert act("release", *ids(site)) == 409


def test_a_file_that_cannot_be_registered_is_released_and_dropped(site, store, act):
    send_unregistrable(*store)
    (name,) = ids(site)
    assert act("drop", f"{name}x") == 404
    assert act("release", name) == 200
    assert ids(site) == []
    assert site.store.unregistered() == 1


def test_a_study_page_shows_a_correction_loudly_and_takes_it_over_with_one_click(
    site, store, operator
):
    send_corrected(*store, study=1, again=1)
    page = operator.get(f"/studies/{UID}")
    assert "Sent again under another patient" in page.text
    assert "Newer copies of 1 of 2 images contradict this study" in words(page)
    assert "when the rest have been sent again" in words(page)
    assert "Take over" not in page.text
    send_corrected(*store, study=1)
    page = operator.get(f"/studies/{UID}")
    assert "Newer copies of 2 of 2 images" in words(page)
    for label, before, after in (
        ("Patient number", "P1", "OTHER"),
        ("Name", "Test, 1", "Right, Rita"),
        ("Birth date", "none", "1970-01-02"),
        ("Accession number", "none", "A-OTHER"),
    ):
        assert f"{label} {before} {after}" in words(page)
    assert f'action="/studies/{UID}/correct"' in page.text
    location = operator.submit(f"/studies/{UID}/correct").headers["location"]
    after = operator.get(location)
    assert "The study is taken over as its newer copies state it" in after.text
    assert "<h1>Right, Rita</h1>" in after.text
    assert 'class="correction"' not in after.text


def test_a_correction_of_the_name_alone_does_not_speak_of_another_patient(store, operator):
    send_corrected(*store, study=1, PatientID="P1")
    page = operator.get(f"/studies/{UID}").text
    assert "Sent again with other data" in page
    assert "another patient</h2>" not in page


def test_the_worklist_marks_a_correction(store, operator):
    send_corrected(*store, study=1)
    send(*store, study=2)
    page = operator.get("/").text
    assert page.count('<small class="flag correction"') == 1
    assert "newer copies of 2 of 2 images state patient OTHER, Right^Rita" in page
    assert page.index('<small class="flag correction"') > page.index(f'data-study="{UID}"')


def test_the_worklist_names_a_correction_of_a_study_that_has_been_read(app, store, operator):
    send_corrected(*store, study=1)
    send(*store, study=2)
    assert browser_client(app, UserRole.READER).submit(f"/studies/{UID}/read").status_code == 303
    page = operator.get("/")
    assert f'data-study="{UID}"' not in page.text
    assert "Sent again under another patient, name or accession number" in words(page)
    assert f'<a href="/studies/{UID}">Test, 1</a>' in page.text
    operator.submit(f"/studies/{UID}/correct")
    assert "Sent again under another patient" not in operator.get("/").text


def test_a_viewer_sees_everything_and_is_offered_no_action(store, viewer):
    send_corrected(*store, study=1)
    pages = [viewer.get(path) for path in (f"/studies/{UID}", "/quarantine")]
    for page in pages:
        assert "a newer copy, which states another patient" in page.text
        assert not re.search(r'action="[^"]*/(correct|release|drop)"', page.text)
    assert "An operator can take it over" in pages[0].text
    assert 'href="/quarantine"' not in pages[0].text


def test_all_quarantined_instances_are_listed_on_one_page_and_saved_as_csv(site, store, operator):
    send_corrected(*store, study=1)
    send(*store, study=2)
    send(*store, study=2, number=2, PatientID="", PatientName="")
    send_unregistrable(*store, study=3)
    page = operator.get("/quarantine")
    assert page.text.count('aria-label="Drop instance') == 4
    assert "no name no number none" in words(page)
    assert "not known" in page.text
    assert "a file that cannot be registered" in page.text
    of_one = operator.get("/quarantine", params={"uid": UID})
    assert of_one.text.count('aria-label="Drop instance') == 2
    assert "Nothing is quarantined" in operator.get("/quarantine?uid=1.2.3").text
    table = operator.get("/quarantine.csv")
    rows = list(csv.DictReader(io.StringIO(table.text.removeprefix("\ufeff"))))
    assert [r["id"] for r in rows] == [r.id for r in quarantine.list_quarantined(site)]
    assert rows[-1]["patient_name"] == "Right^Rita"
    system = operator.get("/system")
    assert "Instances that are kept but not used: 3." in words(system)
    assert 'href="/quarantine"' in system.text
    kinds = [event for event, _, _ in audit_rows(site)]
    assert kinds.count("quarantine.seen") == 1
    assert kinds.count("quarantine.exported") == 1


def test_a_study_page_lists_its_quarantined_instances(site, store, operator):
    send(*store)
    send(*store, "PACS", fill=99, AccessionNumber="A7")
    send_unregistrable(*store)
    page = operator.get(f"/studies/{UID}")
    assert "other content under the same SOP Instance UID Test, 1 P1 A7 PACS" in words(page)
    assert "a file that cannot be registered" in page.text
    for instance in ids(site):
        assert f'action="/quarantine/{instance}/release"' in page.text
    (name, contradicting) = ids(site)
    response = operator.submit(f"/quarantine/{contradicting}/release", uid=UID)
    assert response.headers["location"] == f"/studies/{UID}?done=released"
    assert "The instance is released." in operator.get(response.headers["location"]).text
    response = operator.submit(f"/quarantine/{name}/drop")
    assert response.headers["location"] == "/quarantine?done=dropped"
    assert "The instance is deleted." in operator.get(response.headers["location"]).text


def test_of_many_quarantined_instances_a_study_page_shows_the_newest(store, operator):
    send(*store)
    for fill in range(30, 55):
        send(*store, fill=fill)
    page = operator.get(f"/studies/{UID}")
    assert page.text.count('aria-label="Drop instance') == 20
    assert f'href="/quarantine?uid={UID}"' in page.text
    assert "25 images quarantined: other content" in words(page)


def test_other_objects_and_disagreements_are_stated_with_the_study(store, operator, program):
    send(*store)
    send(*store, number=2)
    send(*store, number=3, AccessionNumber="A1")
    send(*store, number=4, AccessionNumber="A2")
    send_object(*store, study=1, number=1)
    page = words(operator.get(f"/studies/{UID}"))
    assert "4 images and 1 object that is no MR image, the last received" in page
    send_object(*store, study=1, number=2)
    page = words(operator.get(f"/studies/{UID}"))
    assert "4 images and 2 objects that are no MR images" in page
    assert "Images disagree: accession number: A1 on 1 image counts; A2 on 1." in page
    detail = program.get(f"/api/v1/studies/{UID}").json()
    assert detail["other_objects"] == 2
    assert detail["disagreements"] == ["accession number: A1 on 1 image counts; A2 on 1"]
    assert detail["corrections"] == []


def test_a_study_without_images_is_shown_with_the_reason(site, store, operator, program):
    send_object(*store, study=1)
    send(*store, study=2)
    note = make_note("113001", [make_slice(study=2)])
    ingest(site.database, site.store, arrival(note), REJECTING)
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, f"{ROOT}.2").id)
    for uid, reason in ((UID, "no MR images"), (f"{ROOT}.2", "rejected for quality reasons")):
        page = words(operator.get(f"/studies/{uid}"))
        assert "No images:" in page
        assert reason in page
        assert "0 images and 1 object that is no MR image" in page
        assert program.get(f"/api/v1/studies/{uid}").json()["study"]["state"] == "no_images"
        assert operator.get(f"/studies/{uid}/series").json() == []
    assert "no images" in operator.get("/?state=no_images").text


def test_a_study_whose_images_were_partly_removed_shows_the_rest(site, store, operator):
    for number in (1, 2):
        send(*store, number=number)
    send(*store, number=2, fill=99)
    end(site, 1, StudyEvent.REFUSED, reason="no lumbar spine was found")
    note = make_note("113039", [make_slice(number=2)])
    ingest(site.database, site.store, arrival(note), REJECTING)
    with site.database.transaction() as session:
        study = studies.find(session, UID)
        reviews.mark_read(session, study, Participant("anna"))
        study_id = study.id
    assert retention.remove(site, study_id, "retention", expired=True)
    page = operator.get(f"/studies/{UID}")
    assert "The images were removed" not in page.text
    assert "its file was removed to make room" in page.text
    (contradicting,) = ids(site)
    assert f'action="/quarantine/{contradicting}/release"' not in page.text
    assert f'action="/quarantine/{contradicting}/drop"' in page.text
    (series,) = operator.get(f"/studies/{UID}/series").json()
    assert len(series["slices"]) == 1
    assert operator.submit(f"/quarantine/{contradicting}/release").status_code == 409


def test_the_api_lists_what_is_quarantined(site, store, program):
    send_corrected(*store, study=1)
    send_unregistrable(*store, study=1)
    send(*store, study=2)
    send(*store, study=2, fill=99)
    rows = program.get("/api/v1/quarantined").json()
    assert [r["id"] for r in rows] == [r.id for r in quarantine.list_quarantined(site)]
    assert len(program.get("/api/v1/quarantined?limit=2").json()) == 2
    of_study = program.get(f"/api/v1/studies/{UID}/quarantined").json()
    assert {r["study_instance_uid"] for r in of_study} == {UID}
    assert (of_study[-1]["patient_name"], of_study[-1]["source"]) == ("Right^Rita", "PACS")
    assert program.get("/api/v1/studies/1.2.3/quarantined").status_code == 404
    refused = program.get("/api/v1/quarantined?study=1")
    assert refused.status_code == 422
    assert "there is no such parameter" in refused.json()["detail"]
    seen = [(event, study) for event, _, study in audit_rows(site) if event.endswith(".seen")]
    assert seen == [("quarantine.seen", None), ("study.seen", 1)]


def test_the_api_states_both_sides_of_a_correction(store, program):
    send_corrected(*store, study=1, again=1)
    (correction,) = program.get(f"/api/v1/studies/{UID}").json()["corrections"]
    token = correction.pop("token")
    assert correction == {
        "current": {
            "patient_identifier": "P1",
            "patient_name": "Test^1",
            "birth_date": "",
            "sex": "",
            "accession_number": "",
        },
        "newer": {
            "patient_identifier": "OTHER",
            "patient_name": "Right^Rita",
            "birth_date": "19700102",
            "sex": "F",
            "accession_number": "A-OTHER",
        },
        "replaced": 1,
        "images": 2,
        "complete": False,
    }
    (listed,) = program.get("/api/v1/worklist").json()["rows"]
    assert listed["flags"][0].startswith("newer copies of 1 of 2 images state patient OTHER")
    send_corrected(*store, study=1, again=2)
    address = f"/api/v1/studies/{UID}/correct"
    assert program.post(address, json={"correction": "another"}).status_code == 409
    assert program.post(address, json={"correction": token}).status_code == 200


@pytest.mark.parametrize("role", [UserRole.VIEWER, UserRole.READER])
def test_only_an_operator_may_act(site, store, app, role):
    send_corrected(*store, study=1)
    (instance, _) = ids(site)
    browser, program = browser_client(app, role), token_client(app, role)
    for path in (
        f"/studies/{UID}/correct",
        f"/quarantine/{instance}/release",
        f"/quarantine/{instance}/drop",
    ):
        assert browser.submit(path).status_code == 403
    for method, path in (
        ("POST", f"studies/{UID}/correct"),
        ("POST", f"quarantined/{instance}/release"),
        ("DELETE", f"quarantined/{instance}"),
    ):
        assert program.request(method, f"/api/v1/{path}").status_code == 403
    assert len(ids(site)) == 2
    assert row(site, Study).patient.patient_identifier == "P1"


def test_the_texts_of_a_quarantined_copy_are_escaped(site, store, operator):
    hostile = '<script>alert("1")</script>'
    send_corrected(*store, study=1, PatientName=hostile, AccessionNumber="<b>")
    send(*store, study=1, number=3, PatientID="<i>", PatientName=hostile)
    for path in ("/", "/studies", f"/studies/{UID}", "/quarantine"):
        page = operator.get(path).text
        assert str(escape(hostile)) in page
        for element in (hostile, "<b>", "<i>"):
            assert element not in page


def test_a_report_that_a_correction_replaces_is_still_shown_with_its_revision(
    site, store, operator
):
    analysed(site, 1)
    send(*store, "PACS", PatientID="OTHER")
    operator.submit(f"/studies/{UID}/correct")
    page = words(operator.get(f"/studies/{UID}"))
    assert "revision 2" in page
