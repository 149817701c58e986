"""Hostile datasets: each is refused by name or kept and judged by name, and nothing else happens."""

import re

import pytest
from sqlalchemy import select

from db.models import Study
from tests.hostile.datasets import DATASETS
from tests.system import closing_database, wait_until

pytestmark = pytest.mark.slow

SETTINGS = {"LUMBAR_MAXIMUM_INSTANCE_MIB": "96", "LUMBAR_QUIET_INCOMPLETE_S": "1"}
REFUSED = [one for one in DATASETS if one.status != 0x0000]
KEPT = [one for one in DATASETS if one.status == 0x0000]


@pytest.mark.parametrize("hostile", REFUSED, ids=lambda one: one.name)
def test_a_hostile_dataset_is_refused_by_name(watched, hostile):
    before = watched.system.log.stat().st_size
    answer = send(watched, hostile)
    assert answer == hostile.status
    watched.wait_for_event(before, hostile.event, hostile.why)


@pytest.mark.parametrize("hostile", KEPT, ids=lambda one: one.name)
def test_a_broken_image_is_kept(watched, hostile):
    answer = send(watched, hostile)
    assert answer == 0x0000


def test_the_study_of_each_kept_one_ends_not_analysable_with_its_reason(watched):
    wanted = {f"{one.uid.decode()}.9": one for one in KEPT}
    found = {}

    def ended():
        with (
            closing_database(watched.system.database_url) as database,
            database.reading() as session,
        ):
            rows = session.execute(
                select(Study.study_instance_uid, Study.state, Study.reason)
            ).all()
        found.update({uid: (str(state), reason) for uid, state, reason in rows})
        return all(found[uid][0] == "not_analysable" for uid in wanted if uid in found)

    wait_until(ended, 60, lambda: str({one.name: found.get(uid) for uid, one in wanted.items()}))
    wrong = {
        one.name: found[uid]
        for uid, one in wanted.items()
        if uid in found and not re.fullmatch(one.why, found[uid][1] or "")
    }
    assert wrong == {}


def test_after_all_of_them_the_system_is_unharmed(watched):
    watched.require_unharmed()


def send(watched, hostile):
    uid = hostile.uid if hostile.announced is None else hostile.announced
    return watched.store(hostile.make(hostile.uid), uid, hostile.syntax, hostile.abstract)
