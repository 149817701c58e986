"""A worker as `lumbar worker` runs it, whose jobs are lines in its output: ``WorkerProcess``."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from db.models import JobKind
from lumbar.settings import Settings
from tests.system import wait_until
from worker.celery_app import CeleryNotifier, create_app

DONE = "a job is done"


class WorkerProcess:
    """Runs as long as the ``with`` block; ``settings`` are the broker's."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "worker.log"
        self._settings = {f"LUMBAR_{name.upper()}": value for name, value in settings.items()}
        self.notifier = CeleryNotifier(create_app(Settings(**settings)))

    def __enter__(self) -> Self:
        inherited = {name: value for name, value in os.environ.items() if "LUMBAR" not in name}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.worker_process"],
                env=inherited | self._settings,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def jobs(self) -> int:
        return self.log().count(DONE)

    def does_the_next_job(self, within_s: float = 30) -> None:
        """Notifies until one more job is done, as the sweep does."""
        before = self.jobs()

        def done() -> bool:
            self.notify()
            return self.jobs() > before

        wait_until(done, within_s, lambda: f"no job was done:\n{self.log()[-3000:]}")
        assert self.process.poll() is None

    def notify(self) -> str:
        """Notifies of one job as the sweep does; the reason if the broker could not be told."""
        from worker.celery_app import BrokerUnavailable

        try:
            self.notifier.notify(JobKind.ANALYSE, 1)
        except BrokerUnavailable as error:
            return str(error)
        return ""


def _run() -> None:
    from commands.stopping import on_stop
    from lumbar import log
    from worker.celery_app import bind, run_worker

    def job() -> bool:
        sys.stdout.write(f"{DONE}\n")
        sys.stdout.flush()
        return True

    settings = Settings.load()
    log.configure()
    app = create_app(settings)
    bind(app, {JobKind.ANALYSE: job})
    run_worker(app, on_stop())


if __name__ == "__main__":
    _run()
