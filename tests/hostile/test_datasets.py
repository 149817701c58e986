"""Hostile datasets: each is refused, or stored and its study not analysable, with its reason and no other effect."""

import re

import pytest
from sqlalchemy import select

from db.models import Study
from tests.hostile.datasets import DATASETS
from tests.system import closing_database, wait_until

pytestmark = pytest.mark.slow

SETTINGS = {"LUMBAR_MAXIMUM_INSTANCE_MIB": "96", "LUMBAR_QUIET_INCOMPLETE_S": "1"}
REFUSED = [dataset for dataset in DATASETS if dataset.status != 0x0000]
STORED = [dataset for dataset in DATASETS if dataset.status == 0x0000]


@pytest.mark.parametrize("hostile", REFUSED, ids=lambda dataset: dataset.name)
def test_a_hostile_dataset_is_refused_with_its_reason(monitored, hostile):
    before = monitored.system.log.stat().st_size
    status = send(monitored, hostile)
    assert status == hostile.status
    monitored.wait_for_event(before, hostile.event, hostile.reason)


@pytest.mark.parametrize("hostile", STORED, ids=lambda dataset: dataset.name)
def test_an_unusable_image_is_stored(monitored, hostile):
    status = send(monitored, hostile)
    assert status == 0x0000


def test_the_study_of_each_stored_image_is_not_analysable_with_its_reason(monitored):
    studies = {f"{dataset.uid.decode()}.9": dataset for dataset in STORED}
    outcomes = {}

    def ended():
        with (
            closing_database(monitored.system.database_url) as database,
            database.reading() as session,
        ):
            rows = session.execute(
                select(Study.study_instance_uid, Study.state, Study.reason)
            ).all()
        outcomes.update({uid: (str(state), reason) for uid, state, reason in rows})
        return all(outcomes[uid][0] == "not_analysable" for uid in studies if uid in outcomes)

    wait_until(
        ended,
        60,
        lambda: str({dataset.name: outcomes.get(uid) for uid, dataset in studies.items()}),
    )
    wrong = {
        dataset.name: outcomes[uid]
        for uid, dataset in studies.items()
        if uid in outcomes and not re.fullmatch(dataset.reason, outcomes[uid][1] or "")
    }
    assert wrong == {}


def test_after_all_inputs_the_system_is_unharmed(monitored):
    monitored.require_unharmed()


def send(monitored, hostile):
    uid = hostile.uid if hostile.announced_uid is None else hostile.announced_uid
    return monitored.store(hostile.make(hostile.uid), uid, hostile.syntax, hostile.abstract)
