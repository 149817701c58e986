"""kill -9 of the whole system at any moment: every study that was acknowledged ends analysed."""

import os
import random
import signal
import threading

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from redis import Redis

from db import studies
from lumbar.errors import LumbarError
from lumbar.peers import DimseDestination
from lumbar.peers.demo_pacs import DemoPacs
from lumbar.peers.dimse import send_files
from tests.servers import Postgres
from tests.system import System, closing_database, wait_until

pytestmark = pytest.mark.slow

KILLS = 5
SEED = 20261123


class Scanner(threading.Thread):
    """Sends files, and repeats those not acknowledged, as a scanner's queue does."""

    def __init__(self, port, files):
        super().__init__(daemon=True)
        self.receiver = DimseDestination("receiver", "127.0.0.1", port, "LUMBAR", "TESTMR")
        self.unacknowledged = list(files)

    def run(self):
        while self.unacknowledged:
            batch = self.unacknowledged[:20]
            try:
                failed = {
                    instance.path for instance in send_files(self.receiver, batch, timeout_s=10)
                }
            except LumbarError:
                failed = set(batch)
                threading.Event().wait(0.2)  # as long as a queue would pause
            self.unacknowledged = [
                file for file in self.unacknowledged if file not in batch or file in failed
            ]


def test_every_acknowledged_study_ends_analysed_whenever_the_system_is_killed(
    system, phantom, tmp_path
):
    sent = dict(phantom(seed) for seed in (1, 2))
    files = [file for folder in sent for file in sorted(folder.rglob("*.dcm"))]
    uids = {dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in files}
    states = {truth.study_instance_uid: "analysed" for truth in sent.values()}
    moments = random.Random(SEED)
    with DemoPacs(tmp_path / "pacs", "PACS") as pacs:
        system.set(destinations=f'{{"pacs": "dicom://PACS@127.0.0.1:{pacs.port}"}}')
        system.start()
        scanner = Scanner(system.port, files)
        scanner.start()
        for _ in range(KILLS):
            threading.Event().wait(
                moments.uniform(0, 2.5)
            )  # any moment: nothing is waited for on purpose
            system.kill()
            system.start()
        scanner.join(60)
        assert not scanner.unacknowledged
        system.wait_for_states(states)
        for study in states:
            pacs.wait_for(lambda instance, study=study: instance.study_instance_uid == study, 30)
    assert len(system.findings()) == 25 * len(states)
    assert registered(system, states) == uids
    assert len({instance.sop_instance_uid for instance in pacs.received}) == len(
        list(pacs.folder.glob("*.dcm"))
    )


def test_a_killed_service_is_restarted_and_the_study_continues(system, phantom):
    folder, truth = phantom(1)
    system.start()
    wait_until(lambda: "sweep.started" in system.tail(), 30, system.tail)
    before = system.parts()
    for process in before.values():
        os.kill(process, signal.SIGKILL)
    wait_until(
        lambda: set(system.parts()) == set(before) and system.parts() != before, 20, system.tail
    )
    wait_until(lambda: system.dcmsend(folder).returncode == 0, 30, system.tail)
    system.wait_for_states({truth.study_instance_uid: "analysed"})


def test_services_that_start_while_the_database_is_unavailable_wait_for_it(
    redis, phantom, tmp_path
):
    folder, truth = phantom(1)
    with Postgres(tmp_path / "postgres") as database:
        servers = {"LUMBAR_DATABASE_URL": database.new_database(), "LUMBAR_BROKER_URL": redis.url}
        system = System(tmp_path / "system", servers)
        system.start()
        wait_until(
            lambda: set(system.parts()) == {"scp", "sweep", "deliver", "worker"}, 30, system.tail
        )
        database.stop_at_once()
        try:
            before = system.parts()
            for process in before.values():
                os.kill(process, signal.SIGKILL)
            wait_until(
                lambda: system.log.read_text().count("event=database.awaited") >= 4, 60, system.tail
            )
            assert not set(system.parts().values()) & set(before.values())
            database.__enter__()
            wait_until(lambda: system.dcmsend(folder).returncode == 0, 60, system.tail)
            system.wait_for_states({truth.study_instance_uid: "analysed"}, 120)
        finally:
            system.kill()


def test_a_broker_flushed_before_a_worker_was_notified_loses_nothing(
    redis, postgres, phantom, tmp_path
):
    folder, truth = phantom(1)
    broker = {"LUMBAR_DATABASE_URL": postgres.new_database(), "LUMBAR_BROKER_URL": redis.url}
    system = System(tmp_path / "system", broker)
    assert system.lumbar("db", "upgrade").returncode == 0
    client = Redis.from_url(redis.url)
    try:
        system.start("scp", "sweep")
        assert system.dcmsend(folder).returncode == 0
        wait_until(lambda: client.llen("lumbar.analyse") > 0, 30, system.tail)
        client.flushall()
        system.start("worker")
        system.wait_for_states({truth.study_instance_uid: "analysed"})
    finally:
        system.kill()
        client.close()


def test_it_stops_on_request_although_a_sender_keeps_its_association_open(system):
    system.start()
    ae = AE()
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", system.port, ae_title="LUMBAR")
    assert association.is_established
    assert system.terminate(within_s=30) == 0
    association.abort()


def registered(system, states):
    """The SOP instances that the analyses read."""
    with closing_database(system.database_url) as database, database.reading() as session:
        instances = [
            studies.images_in_use(session, studies.find(session, study).id) for study in states
        ]
    return {instance.sop_instance_uid for of_study in instances for instance in of_study}
