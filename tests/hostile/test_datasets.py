"""Hostile datasets: each is refused, or stored and outcomes not analysable, with its reason and no other effect."""

import re

import pytest
from sqlalchemy import select

from db.models import Study
from tests.hostile.datasets import DATASETS
from tests.system import closing_database, wait_until

pytestmark = pytest.mark.slow

SETTINGS = {"LUMBAR_MAXIMUM_INSTANCE_MIB": "96", "LUMBAR_QUIET_INCOMPLETE_S": "1"}
REFUSED = [one for one in DATASETS if one.status != 0x0000]
STORED = [one for one in DATASETS if one.status == 0x0000]


@pytest.mark.parametrize("hostile", REFUSED, ids=lambda one: one.name)
def test_a_hostile_dataset_is_refused_with_its_reason(monitored, hostile):
    before = monitored.system.log.stat().st_size
    status = send(monitored, hostile)
    assert status == hostile.status
    monitored.wait_for_event(before, hostile.event, hostile.why)


@pytest.mark.parametrize("hostile", STORED, ids=lambda one: one.name)
def test_an_unusable_image_is_stored(monitored, hostile):
    status = send(monitored, hostile)
    assert status == 0x0000


def test_the_study_of_each_stored_one_is_not_analysable_with_its_reason(monitored):
    studies = {f"{one.uid.decode()}.9": one for one in STORED}
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
        ended, 60, lambda: str({one.name: outcomes.get(uid) for uid, one in studies.items()})
    )
    wrong = {
        one.name: outcomes[uid]
        for uid, one in studies.items()
        if uid in outcomes and not re.fullmatch(one.why, outcomes[uid][1] or "")
    }
    assert wrong == {}


def test_after_all_of_them_the_system_is_unharmed(monitored):
    monitored.require_unharmed()


def send(monitored, hostile):
    uid = hostile.uid if hostile.announced is None else hostile.announced
    return monitored.store(hostile.make(hostile.uid), uid, hostile.syntax, hostile.abstract)
