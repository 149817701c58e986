"""Reports in a bad week: the PACS is away or silent, the database an older copy, a file cut."""

import json
import shutil
import socket
from contextlib import closing, contextmanager
from hashlib import sha256

import pytest

from db.audit import Participant
from db.context import SiteContext
from db.deletion import delete_study
from lumbar.settings import Settings
from lumbar.store.files import Store
from tests.peers import Orthanc
from tests.system import closing_database, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def pacs(tmp_path):
    """An Orthanc of its own, because it is stopped and started."""
    with Orthanc(tmp_path / "pacs") as server:
        yield server


@pytest.fixture
def embedded(system, pacs):
    """The system with that PACS as its destination; not started."""
    system.set(destinations=json.dumps({"pacs": url(pacs)}), retry_longest_s="1")
    return system


def url(pacs):
    return f"dicom://{pacs.ae_title}@127.0.0.1:{pacs.dicom_port}"


def reports(pacs):
    """The tags of every report in the PACS, by SOP Instance UID."""
    tags = [pacs.rest(f"/instances/{name}/tags?simplify") for name in pacs.rest("/instances")]
    return {report["SOPInstanceUID"]: report for report in tags}


def predecessors(report):
    return {
        reference["ReferencedSOPInstanceUID"]
        for study in report.get("PredecessorDocumentsSequence", [])
        for series in study["ReferencedSeriesSequence"]
        for reference in series["ReferencedSOPSequence"]
    }


def destination(system, name="pacs"):
    """A destination as `lumbar destinations list` shows it."""
    done = system.lumbar("destinations", "list", "--format", "json")
    assert done.returncode == 0, done.stderr
    return next(row for row in json.loads(done.stdout) if row["destination"] == name)


def send(system, phantom, seed):
    folder, truth = phantom(seed)
    assert system.dcmsend(folder).returncode == 0
    return truth.study_instance_uid


def states(system, study):
    return [str(row.state) for row in system.deliveries(study)]


def test_a_pacs_that_is_away_longer_than_all_attempts_gets_every_report_when_it_is_back(
    embedded, pacs, phantom
):
    embedded.set(attempts="2")
    embedded.start()
    pacs.kill()
    studies = {send(embedded, phantom, seed): "analysed" for seed in (1, 2)}
    embedded.wait_for_states(studies)
    wait_until(lambda: tried(embedded, studies) >= 5, 60, embedded.tail)
    row = destination(embedded)
    assert (row["waiting"], row["dead"]) == (2, 0)
    assert row["held_since"]
    assert "does not answer" in row["last_error"]
    shown = embedded.lumbar("status").stdout
    assert "2 waiting" in " ".join(shown.split())

    pacs.__enter__()
    wait_until(lambda: len(pacs.rest("/instances")) == 2, 60, embedded.tail)
    wait_until(lambda: destination(embedded)["waiting"] == 0, 30, embedded.tail)
    row = destination(embedded)
    assert (row["dead"], row["held_since"]) == (0, None)


def tried(system, studies):
    return sum(row.attempts for study in studies for row in system.deliveries(study))


def test_a_silent_peer_delays_only_itself(embedded, pacs, phantom):
    with silent() as port:
        embedded.set(
            destinations=json.dumps({"pacs": url(pacs), "mute": f"dicom://MUTE@127.0.0.1:{port}"}),
            delivery_timeout_s="600",
            delivery_limit_s="600",
        )
        embedded.start()
        for seed in (1, 2):
            study = send(embedded, phantom, seed)
            wait_until(
                lambda: "done" in states_or_none(embedded, study),  # noqa: B023
                60,
                embedded.tail,
            )
            assert sorted(states(embedded, study)) in (["done", "pending"], ["done", "running"])


def states_or_none(system, study):
    return states(system, study) if study in system.states() else []


@contextmanager
def silent():
    """A port that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=20)) as server:
        yield server.getsockname()[1]


def test_a_study_deleted_here_and_sent_again_replaces_the_report_that_the_pacs_keeps(
    embedded, pacs, phantom
):
    embedded.start()
    study = send(embedded, phantom, 1)
    wait_until(lambda: len(pacs.rest("/instances")) == 1, 60, embedded.tail)
    wait_until(lambda: states(embedded, study) == ["done"], 30, embedded.tail)
    (first,) = reports(pacs)
    with closing_database(embedded.database_url) as database:
        settings = Settings(home=embedded.home, database_url=embedded.database_url)
        site = SiteContext(settings, database, Store(embedded.home / "store"))
        delete_study(site, study, "asked by the patient", Participant("anna"))

    assert send(embedded, phantom, 1) == study
    wait_until(lambda: len(pacs.rest("/instances")) == 2, 60, embedded.tail)
    second = next(report for uid, report in reports(pacs).items() if uid != first)
    assert predecessors(second) == {first}
    assert second["InstanceNumber"] == "2"


@pytest.mark.parametrize("system", ["embedded"], indirect=True)  # a database that is one file
def test_after_the_database_was_restored_no_uid_has_two_contents_and_the_chain_is_whole(
    embedded, pacs, phantom, tmp_path
):
    embedded.start()
    study = send(embedded, phantom, 1)
    wait_until(lambda: states_or_none(embedded, study) == ["done"], 60, embedded.tail)
    backup = tmp_path / "backup.sqlite"
    embedded.kill()
    database = embedded.home / "lumbar.sqlite"
    for suffix in ("", "-wal"):  # as a copy made while nothing runs
        if (file := database.with_name(database.name + suffix)).exists():
            shutil.copy(file, backup.with_name(backup.name + suffix))
    embedded.start()
    late = send(embedded, phantom, 2)
    wait_until(lambda: states_or_none(embedded, late) == ["done"], 60, embedded.tail)
    before = {uid: digest(pacs, uid) for uid in reports(pacs)}
    assert len(before) == 2

    embedded.kill()
    for suffix in ("", "-wal", "-shm"):
        file = database.with_name(database.name + suffix)
        file.unlink(missing_ok=True)
        if (copy := backup.with_name(backup.name + suffix)).exists():
            shutil.copy(copy, file)
    embedded.start()
    wait_until(lambda: len(pacs.rest("/instances")) == 3, 120, embedded.tail)
    after = reports(pacs)
    (new,) = after.keys() - before.keys()
    assert after[new]["StudyInstanceUID"] == late
    assert predecessors(after[new]) == {
        uid for uid in before if after[uid]["StudyInstanceUID"] == late
    }
    assert {uid: digest(pacs, uid) for uid in before} == before


def digest(pacs, uid):
    (name,) = json.loads(pacs_find(pacs, uid))
    return sha256(pacs.download(f"/instances/{name}/file")).hexdigest()


def pacs_find(pacs, uid):
    query = {"Level": "Instance", "Query": {"SOPInstanceUID": uid}}
    return json.dumps(pacs.post("/tools/find", json.dumps(query).encode()))


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_report_is_made_again_with_the_same_bytes(embedded, pacs, phantom, damage):
    embedded.start()
    pacs.kill()
    study = send(embedded, phantom, 1)
    embedded.wait_for_states({study: "analysed"})
    (file,) = (embedded.home / "store" / "reports").rglob("*.dcm")
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:1000])
    else:
        file.unlink()
        (file.parent.parent / "keep").mkdir()  # the disk is there

    pacs.__enter__()
    wait_until(lambda: len(pacs.rest("/instances")) == 1, 120, embedded.tail)
    wait_until(lambda: file.exists() and file.read_bytes() == content, 30, embedded.tail)
    wait_until(lambda: "done" in states(embedded, study), 30, embedded.tail)
    assert destination(embedded)["dead"] == 0
