"""The process whose system calls are crash points (``tests.faults.crash_points``).

It runs under ``powercut.c``. A request names a scenario and the call to die before; the answer says
whether the scenario was completed, and which images it acknowledged before.
"""

import ctypes
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom import Dataset
from sqlalchemy import select, update

from db import deletion, registration, retention
from db import reconcile as reconcile_module
from db.audit import Participant
from db.context import SiteContext
from db.database import Database
from db.models import Instance, Study
from db.registrar import Registrar
from lumbar import log
from lumbar.dicom.headers import read_header
from lumbar.dicom.instance_identity import identity_of
from lumbar.errors import LumbarError
from lumbar.settings import Settings
from lumbar.store.arrivals import ArrivingInstance
from lumbar.store.files import Store
from tests.databases import sqlite_database
from tests.factories.ages import ended
from tests.factories.instances import ROOT, arrival, make_slice

UID = f"{ROOT}.1"


def receive(site: SiteContext, acknowledge: int, *images: Dataset) -> None:
    """What the receiver does: the file is durable, then the image is acknowledged."""
    for ds in images:
        sent = arrival(ds)
        with ArrivingInstance(site.store, sent.announced) as arriving:
            arriving.write(sent.dataset.read())
            arriving.arrive()
        os.write(acknowledge, f"{ds.SOPInstanceUID}\n".encode())


def register(site: SiteContext) -> None:
    while Registrar(site).register_arrived():
        pass


def received(site: SiteContext, acknowledge: int) -> None:
    receive(site, acknowledge, make_slice(number=1), make_slice(number=2))
    register(site)


def taken_over(site: SiteContext, acknowledge: int) -> None:
    """As ``received``; where the process dies, another registers before the power is cut."""
    received(site, acknowledge)


def sent_again(site: SiteContext, acknowledge: int) -> None:
    receive(site, acknowledge, make_slice())
    register(site)
    receive(site, acknowledge, make_slice())
    register(site)


def removed_in_between(site: SiteContext, acknowledge: int) -> None:
    """Retention removes the study's images between an answer and its rows."""
    receive(site, acknowledge, make_slice(number=1))
    register(site)
    finish(site)
    receive(site, acknowledge, make_slice(number=1), make_slice(number=2))
    retention.remove_images(site)
    register(site)


def deleted_in_between(site: SiteContext, acknowledge: int) -> None:
    """The study is deleted; an image of it is sent again while its rows are being removed."""
    receive(site, acknowledge, make_slice(number=1))
    register(site)
    remove_rows = deletion._remove_rows

    def arrives_first(*arguments: object) -> object:
        receive(site, acknowledge, make_slice(number=2))
        return remove_rows(*arguments)  # type: ignore[arg-type]

    deletion._remove_rows = arrives_first  # type: ignore[assignment]
    os.write(acknowledge, b"forget\n")  # its first image is deleted on purpose
    deletion.delete_study(site, UID, "a test", Participant("admin"))
    register(site)


def finish(site: SiteContext) -> None:
    """The study ended long ago, and has been read."""
    with site.database.transaction() as session:
        session.execute(update(Study).values(ended(days=90)))


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (received, taken_over, sent_again, removed_in_between, deleted_in_between)
}


def recover(site: SiteContext) -> dict[str, list[str]]:
    """Starts up, and says what is there."""
    reconcile_module.reconcile(site)
    register(site)
    with site.database.reading() as session:
        rows = session.scalars(
            select(Instance).where(Instance.quarantined.is_(None), Instance.removed_at.is_(None))
        ).all()
    whole = {row.sop_instance_uid: intact(site.store, row) for row in rows}
    counts = Counter(row.sop_instance_uid for row in rows)
    return {
        "intact": [uid for uid, good in whole.items() if good],
        "damaged": [uid for uid, good in whole.items() if not good],
        "twice": [uid for uid, count in counts.items() if count > 1],
        "arrived": sorted(site.store.arriving()),
    }


def intact(store: Store, row: Instance) -> bool:
    with suppress(OSError, LumbarError):
        return registration._intact(store.path(row.file), row.sha256)
    return False


def main() -> None:
    home, counted = Path(sys.argv[1]), sys.argv[2].encode()
    log.configure("console")
    # In this process, where the receiver would ask a child process: a fork of it would start anew.
    for module in (registration, reconcile_module):
        module.identify = lambda path: identity_of(read_header(path))  # type: ignore[assignment]
    library = ctypes.CDLL(None)
    library.powercut_die_before.argtypes = (ctypes.c_long, ctypes.c_char_p)
    _warm_up()
    for line in sys.stdin:
        name, number = line.split()
        if name in IN_A_FORK:
            answer: object = in_a_fork(home, IN_A_FORK[name])
        else:
            arm = partial(library.powercut_die_before, int(number), counted)
            answer = crashed(home, name, arm)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _warm_up() -> None:
    """Does once, elsewhere, what every fork would otherwise do anew."""
    with TemporaryDirectory() as name:
        Store(Path(name) / "store").create()
        sqlite_database(Path(name) / "lumbar.sqlite")
        site = opened(Path(name))
        received(site, os.open(os.devnull, os.O_WRONLY))
        recover(site)
        site.database.close()


def crashed(home: Path, name: str, arm: Callable[[], None]) -> tuple[bool, list[str]]:
    """Does a scenario in a fork that dies before its nth call."""
    receiving, acknowledge = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        site = opened(home)
        arm()
        SCENARIOS[name](site, acknowledge)
        os._exit(0)
    os.close(acknowledge)
    _, status = os.waitpid(child, 0)
    with os.fdopen(receiving) as stream:
        lines = stream.read().split()
    forgotten = len(lines) - lines[::-1].index("forget") if "forget" in lines else 0
    return status == 0, lines[forgotten:]


IN_A_FORK = {"recover": recover, "register": register}


def in_a_fork(home: Path, work: Callable[[SiteContext], object]) -> object:
    receiving, answering = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with os.fdopen(answering, "w") as stream:
            json.dump(work(opened(home)), stream)
        os._exit(0)
    os.close(answering)
    with os.fdopen(receiving) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def opened(home: Path) -> SiteContext:
    database = Database.connect(f"sqlite:///{home / 'lumbar.sqlite'}")
    return SiteContext(Settings(home=home), database, Store(home / "store"))


if __name__ == "__main__":
    main()
