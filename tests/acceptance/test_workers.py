"""Workers that are killed, hang or are stopped: no study is lost or delayed."""

import os
import signal
import time

import pytest
from pydicom import dcmread

from db import operator_actions
from db.models import JobKind, JobState
from tests.system import System, closing_database, wait_until

pytestmark = pytest.mark.slow

REQUIRED_S = 30  # from a worker's death to the next attempt, with the default settings


@pytest.fixture
def distributed(redis, postgres, tmp_path):
    """Services to be started one by one."""
    broker = {"LUMBAR_DATABASE_URL": postgres.new_database(), "LUMBAR_BROKER_URL": redis.url}
    system = System(tmp_path / "system", broker)
    assert system.lumbar("db", "upgrade").returncode == 0
    yield system
    system.kill()


def send(system, folder):
    sent = system.dcmsend(folder)
    assert sent.returncode == 0, sent.stdout + sent.stderr


@pytest.mark.serial
def test_a_killed_workers_study_is_claimed_by_another_within_30_s(system, phantom):
    folder, truth = phantom(1)
    study = truth.study_instance_uid
    system.set(lease_s="25", sweep_every_s="0.5")
    system.hold(study)
    system.start()
    send(system, folder)
    system.wait_for_states({study: "analysing"})
    parts = system.parts()
    os.kill(parts.get("worker", parts["sweep"]), signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: "attempt=2" in system.tail(), 60, system.tail)
    assert time.monotonic() - killed < REQUIRED_S
    if "worker" not in parts:
        assert "studies_analysing=1 jobs_analyse_running=1 leases_expired=0" in system.tail()
    system.let_go(study)
    system.wait_for_states({study: "analysed"})


def test_a_study_whose_inference_hangs_fails_with_that_reason_and_the_others_continue(
    system, phantom
):
    (hanging, hangs), (folder, other) = phantom(1), phantom(2)
    system.set(job_limit_s="15", fault_attempts="2")
    system.hold(hangs.study_instance_uid)
    system.start()
    send(system, hanging)
    system.wait_for_states({hangs.study_instance_uid: "analysing"})
    send(system, folder)
    system.wait_for_states(
        {hangs.study_instance_uid: "failed", other.study_instance_uid: "analysed"}, 180
    )
    output = system.lumbar("study", hangs.study_instance_uid).stdout
    assert "failed: it did not end within 15 s" in output
    assert system.log.read_text().count("event=job.stuck") == 2


def test_a_stopping_worker_finishes_its_study_and_claims_no_other(distributed, phantom):
    (first, in_hands), (second, waits) = phantom(1), phantom(2)
    distributed.hold(in_hands.study_instance_uid)
    *_, worker = distributed.start("scp", "sweep", "worker")
    send(distributed, first)
    distributed.wait_for_states({in_hands.study_instance_uid: "analysing"})
    send(distributed, second)
    waiting = {in_hands.study_instance_uid: "analysing", waits.study_instance_uid: "queued"}
    distributed.wait_for_states(waiting)
    worker.terminate()
    wait_until(lambda: "worker.stopping" in distributed.tail(), 30, distributed.tail)
    assert distributed.states() == waiting
    distributed.let_go(in_hands.study_instance_uid)
    assert worker.wait(60) == 0
    distributed.wait_for_states(
        {in_hands.study_instance_uid: "analysed", waits.study_instance_uid: "queued"}
    )
    with closing_database(distributed.database_url) as database, database.reading() as session:
        (job,) = operator_actions.list_jobs(
            session, states=[JobState.PENDING], kinds=[JobKind.ANALYSE]
        )
    assert (job.study_instance_uid, job.attempts) == (waits.study_instance_uid, 0)
    distributed.start("worker")
    distributed.wait_for_states(
        dict.fromkeys((in_hands.study_instance_uid, waits.study_instance_uid), "analysed")
    )


def test_an_urgent_study_is_analysed_before_those_notified_earlier(distributed, phantom, tmp_path):
    (routine, first), (folder, second) = phantom(1), phantom(2)
    stat = tmp_path / "stat"
    stat.mkdir()
    for number, file in enumerate(sorted(folder.rglob("*.dcm"))):
        ds = dcmread(file)
        ds.RequestedProcedurePriority = "STAT"
        ds.save_as(stat / f"{number}.dcm")
    distributed.set(lease_s="25")  # no worker dies, and a busy machine must not look like it
    distributed.start("scp", "sweep")
    for study in (routine, stat):
        send(distributed, study)
        wait_until(lambda: set(distributed.states().values()) == {"queued"}, 30, distributed.tail)
    distributed.start("worker")
    distributed.wait_for_states({study.study_instance_uid: "analysed" for study in (first, second)})
    started = [line for line in distributed.log.read_text().splitlines() if "job.started" in line]
    assert ["study=2" in line for line in started if "kind=analyse" in line] == [True, False]
