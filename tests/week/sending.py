"""The hospital's senders: each sends its studies when they are due, again until acknowledged."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.week.studies import StudyFiles

PAUSE_S = 0.5  # before what was not acknowledged is sent again


@dataclass(frozen=True)
class Item:
    """Files to send at a time; ``files`` returns None where there are none yet.

    ``at_s``: seconds after the week's beginning.
    """

    at_s: float
    study: StudyFiles
    files: Callable[[], Sequence[Path] | None]
    again: bool = False  # the second part of what a study consists of


class Sender(threading.Thread):
    """A modality or a PACS with its queue; ``began`` is the week's beginning (monotonic)."""

    def __init__(self, title: str, port: int, items: Sequence[Item], began: float) -> None:
        super().__init__(name=title, daemon=True)
        self._title, self._port, self._began = title, port, began
        self._items = sorted(items, key=lambda item: item.at_s)
        self._stop = threading.Event()
        self.refused = 0  # associations of which something was not acknowledged

    def run(self) -> None:
        for item in self._items:
            if self._stop.wait(max(0.0, self._began + item.at_s - time.monotonic())):
                return
            if item.again:
                item.study.sent.wait()
            while (files := item.files()) is None:
                if self._stop.wait(PAUSE_S):
                    return
            if not self._send(list(files)):
                return
            item.study.acknowledged(item.again)

    def stop(self) -> None:
        self._stop.set()

    def _send(self, files: list[Path]) -> bool:
        while files:
            acknowledged = _store(self._port, files, self._title)
            del files[:acknowledged]
            if files:
                self.refused += 1
                if self._stop.wait(PAUSE_S):
                    return False
        return True


def _store(port: int, files: Sequence[Path], calling: str) -> int:
    """Sends on one association, until the first failure; returns how many were acknowledged."""
    command = ["storescu", "-v", "-R", "-aec", "LUMBAR", "-aet", calling]
    command += ["-to", "5", "-ta", "20", "-td", "30", "127.0.0.1", str(port)]
    done = subprocess.run(
        [*command, *map(str, files)],
        capture_output=True,
        text=True,
        env=os.environ | {"TCP_NODELAY": "1"},
        check=False,
    )
    return (done.stdout + done.stderr).count("Received Store Response (Success)")
