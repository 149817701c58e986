"""`lumbar demo`: the whole system on this machine, with phantoms and a small PACS."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from commands.output import Format, console, print_findings, print_worklist
from lumbar.errors import Permanent, Transient
from lumbar.peers.demo_pacs import DemoPacs, ReceivedInstance
from lumbar.peers.destinations import DimseDestination
from lumbar.settings import Settings
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Severity
from lumbar.store.temporary import temporary_folder

if TYPE_CHECKING:
    from lumbar.phantoms import PhantomTruth

app = typer.Typer()

READY_WITHIN_S = 60.0
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_USER = "demo"
REPORT_WITHIN_S = 120.0  # for each study's report, once the previous one has arrived

# The studies take turns: all normal, one moderate recess, and one severe canal besides.
_NORMAL = dict.fromkeys(ALL_FINDINGS, Severity.NORMAL_MILD)
_RECESS = FindingKey(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L3_L4)
_CANAL = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
MIXTURE: tuple[Mapping[FindingKey, Severity], ...] = (
    _NORMAL,
    _NORMAL | {_RECESS: Severity.MODERATE},
    _NORMAL | {_RECESS: Severity.MODERATE, _CANAL: Severity.SEVERE},
)


@app.command(epilog="Example: lumbar demo --exit")
def demo(
    end: Annotated[
        bool, typer.Option("--exit", help="Exit when done; status 0 only if everything arrived")
    ] = False,
    studies: Annotated[int, typer.Option(min=6, help="Number of phantom studies")] = 6,
) -> None:
    """Sends phantoms through the whole system and shows the worklist, on the web page too.

    The reports arrive in a small PACS, which runs in this process.
    """
    _end_in_order()
    with temporary_folder(Path(tempfile.gettempdir()), "lumbar-demo-") as home:
        _demonstrate(home, end, studies)


def _demonstrate(home: Path, end: bool, studies: int) -> None:
    try:
        with DemoPacs(home / "pacs", "DEMOPACS") as pacs:
            settings = _demo_settings(home, pacs.port)
            with _system(settings, home / "system.log") as system:
                password = _add_user(settings)
                page = (
                    f"The page: http://127.0.0.1:{settings.web_port} – "
                    f"sign in as {_USER} with {password}"
                )
                console().print(page)
                _run(settings, pacs, home, studies)
                if not end:
                    console().print(
                        f"The receiver listens at dicom://LUMBAR@127.0.0.1:{settings.port}; "
                        f"`LUMBAR_HOME={settings.home} lumbar worklist` lists the studies again. "
                        f"Ctrl-C ends the demo.\n{page}"
                    )
                    status = system.wait()  # until a signal ends the demo
                    raise Permanent(f"`lumbar up` has ended with status {status}")
    except (Permanent, Transient) as error:
        raise Permanent(f"the demo has failed: {error}\n{_tail(home / 'system.log')}") from error


def _end_in_order() -> None:
    """Lets a signal, such as that of a closed terminal, end the demo as its end does."""

    def end(number: int, frame: object) -> None:
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)  # one is enough
        sys.exit(128 + number)

    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, end)


def _run(settings: Settings, pacs: DemoPacs, home: Path, studies: int) -> None:
    """Sends the phantoms, waits for their reports and prints the outcome.

    Raises:
        Permanent: a study lacks findings, or an image was refused.
        Transient: a report did not arrive in time.
    """
    start = time.monotonic()
    with _progress() as progress:
        sending = progress.add_task("Phantoms made and sent", total=studies)
        reporting = progress.add_task("Reports in the PACS", total=studies)
        worst: dict[str, Severity] = {}  # true severity of the worst finding, by study
        for number in range(studies):
            truth = _send_phantom(home / "phantoms" / str(number), number, settings)
            worst[truth.study_instance_uid] = max(
                truth.severities.values(), key=list(Severity).index
            )
            progress.advance(sending)
        for study in worst:
            pacs.wait_for(partial(_is_of, study), REPORT_WITHIN_S)
            progress.advance(reporting)
    duration_s = time.monotonic() - start
    complete, order = _show(settings)
    console().print(
        f"{len(pacs.received)} of {studies} reports arrived in the PACS "
        f"and {complete} of {studies} studies have 25 findings, "
        f"{duration_s:.0f} s after the first image. {_agreement([worst[study] for study in order])}"
    )
    if complete < studies:
        raise Permanent("a study lacks findings")


def _agreement(worst: list[Severity]) -> str:
    """How the worklist's order agrees with the truth.

    ``worst``: the true severity of each study's worst finding, in the worklist's order.
    """
    severe = [rank for rank, severity in enumerate(worst) if severity is Severity.SEVERE]
    normal = [rank for rank, severity in enumerate(worst) if severity is Severity.NORMAL_MILD]
    wrong = sum(low < high for high in severe for low in normal)
    if wrong:
        pairs = len(severe) * len(normal)
        return (
            f"In {wrong} of {pairs} pairs a study without a moderate finding "
            "ranks above one with a severe finding."
        )
    return "Every study with a severe finding ranks above every study without a moderate one."


def _is_of(study_instance_uid: str, received: ReceivedInstance) -> bool:
    return received.study_instance_uid == study_instance_uid


def _add_user(settings: Settings) -> str:
    """Adds an administrator for this demo; returns the password, a new one each time."""
    from db import accounts, passwords
    from db.audit import on_this_host
    from db.context import SiteContext
    from db.models import UserRole

    password = secrets.token_urlsafe(12)
    password_hash = passwords.new_hash(password, _USER)
    with SiteContext.open(settings).database.transaction() as session:
        accounts.add_user(
            session, _USER, password_hash, UserRole.ADMIN, on_this_host("lumbar demo")
        )
    return password


def _demo_settings(home: Path, pacs_port: int) -> Settings:
    """Settings of the demo and its child processes; a real site's settings must not reach it."""
    for name in [name for name in os.environ if name.startswith("LUMBAR_")]:
        del os.environ[name]
    os.chdir(home)
    os.environ |= {
        "LUMBAR_HOME": str(home / "home"),
        "LUMBAR_PORT": str(_free_port()),
        "LUMBAR_WEB_PORT": str(_free_port()),
        "LUMBAR_QUIET_S": "2",
        "LUMBAR_RANK_BY_SYNTHETIC": "true",
        "LUMBAR_DESTINATIONS": json.dumps({"pacs": f"dicom://DEMOPACS@127.0.0.1:{pacs_port}"}),
    }
    return Settings.load()


@contextmanager
def _system(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`lumbar up`, once its receiver and its page listen. It ends if this process is killed."""
    with log.open("wb") as output:
        system = subprocess.Popen(
            [sys.executable, "-m", "commands", "up", "--until-eof"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    try:
        for port in (settings.port, settings.web_port):
            _wait_until_listening(port, system)
        yield system
    finally:
        system.terminate()
        system.wait()


def _wait_until_listening(port: int, system: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and system.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise Transient(f"nothing listened on port {port} within {READY_WITHIN_S:.0f} s")


def _send_phantom(folder: Path, number: int, settings: Settings) -> "PhantomTruth":
    """Makes one study and sends it by C-STORE, as a scanner would; returns its truth.

    Raises:
        Permanent: the receiver refused an image.
    """
    from lumbar.peers.dimse import send_files
    from lumbar.phantoms import write_study

    truth = write_study(folder, seed=number + 1, severities=MIXTURE[number % len(MIXTURE)])
    receiver = DimseDestination("receiver", "127.0.0.1", settings.port, settings.ae_title, "DEMOMR")
    failed = send_files(receiver, sorted(folder.rglob("*.dcm")))
    if failed:
        raise Permanent(f"{len(failed)} images were refused: {failed[0].reason}")
    return truth


def _show(settings: Settings) -> tuple[int, list[str]]:
    """Prints the worklist and the findings of its first study.

    Returns how many studies have all 25 findings, and the studies in the worklist's order.
    """
    from db.context import SiteContext
    from db.read_models import findings
    from db.read_models.findings import FindingFilter
    from db.read_models.worklist import worklist as ranked

    site = SiteContext.open(settings)
    with site.database.reading() as session:
        worklist = ranked(session, site.ranking).rows
    rows = list(findings.stream(site.database, FindingFilter()))
    print_worklist(worklist, Format.TABLE)
    print_findings(
        [row for row in rows if row.study.study_instance_uid == worklist[0].study_instance_uid],
        Format.TABLE,
    )
    studies_of_rows = [row.study.study_instance_uid for row in rows]
    order = [study.study_instance_uid for study in worklist]
    return sum(studies_of_rows.count(study) == len(ALL_FINDINGS) for study in order), order


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
