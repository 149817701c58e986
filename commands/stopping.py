"""How a service learns that it is to stop: by a signal, or by the end of its parent."""

import os
import signal
import threading
from collections.abc import Callable

from lumbar.log import get_logger

log = get_logger()

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOP_WITHIN_S = 60.0  # for the job under way; a kill after that loses nothing acknowledged


def on_stop(until_eof: bool = False) -> threading.Event:
    """An event set by SIGTERM, SIGINT or SIGHUP and, with ``until_eof``, by the parent's end.

    The parent's end is that of standard input. Nobody is then left who would kill a service that
    does not stop: it kills itself after ``STOP_WITHIN_S``.
    """
    stop = threading.Event()
    # Not set in the handler: that may interrupt the main thread while it holds the event's lock.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup lets SIGHUP be ignored
            signal.signal(number, lambda *_: None)
    _start("signal-watch", lambda: _stop_after_byte(reading, stop))
    if until_eof:
        _start("parent-watch", lambda: _stop_with_parent(stop))
    return stop


def _stop_after_byte(descriptor: int, stop: threading.Event) -> None:
    os.read(descriptor, 1)
    stop.set()


def _stop_with_parent(stop: threading.Event) -> None:
    while os.read(0, 1):
        pass
    stop.set()
    kill = threading.Timer(STOP_WITHIN_S, _kill)
    kill.daemon = True
    kill.start()


def _kill() -> None:
    log.error("service.killed", why="it did not stop when its parent had ended")
    os.kill(os.getpid(), signal.SIGKILL)


def _start(name: str, watch: Callable[[], object]) -> None:
    threading.Thread(target=watch, name=name, daemon=True).start()
