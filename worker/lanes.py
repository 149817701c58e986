"""One lane for each destination: its reports are sent one at a time, the most urgent first.

A lane is a thread with a child process that talks to the destination (``lumbar.peers.Peer``). A
destination that hangs costs its own lane the time-out, and nothing else.
"""

import time
from threading import Event, Thread

from db import deliveries, held_destinations, jobs
from db.context import SiteContext
from db.models import UNFINISHED_JOB_STATES, JobKind
from lumbar.errors import Permanent, Transient
from lumbar.log import get_logger
from lumbar.peers import Peer
from lumbar.peers.destinations import Probe
from lumbar.peers.outcomes import NotAuthorised
from worker.delivery import deliver
from worker.runner import perform

log = get_logger()

PAUSE_S = 1.0  # after an error of the database or the disk
STOP_S = 5.0  # that the deliveries under way may still take when the lanes are to stop


class Lane:
    """Delivers to one destination."""

    def __init__(self, site: SiteContext, name: str) -> None:
        self._site = site
        self._name = name
        self._destination = site.settings.destination(name)
        settings = site.settings
        self._peer = Peer(
            self._destination,
            timeout_s=settings.delivery_timeout_s,
            limit_s=settings.delivery_limit_s,
        )
        self._backoff = site.retry_policy(JobKind.DELIVER).temporary
        self._interrupted = False

    def do_next(self) -> bool:
        """Does the most urgent delivery; False when none is due, or the destination is held.

        Raises:
            Transient: the database or the store is away.
        """
        self._site.store.require_mounted()
        with self._site.database.reading() as session:
            due = deliveries.is_due(session, self._name)
            held = held_destinations.hold_of(session, self._name) is not None
        if not due:
            if held:
                self._release_if_idle()
            return False
        if held and self._destination.probe is Probe.ECHO and not self._answers():
            return False
        return perform(
            self._site,
            lambda session: deliveries.claim(
                session,
                self._name,
                lease_s=self._site.lease_s(JobKind.DELIVER),
                longest_s=self._site.settings.retry_longest_s,
            ),
            lambda claimed: deliver(self._site, self._destination, self._peer, claimed),
            on_temporary=lambda *failure: (
                deliveries.interrupted(*failure)
                if self._interrupted
                else deliveries.failed(*failure)
            ),
            on_stuck=self._peer.close,
        )

    def run(self, stop: Event) -> None:
        """Delivers until ``stop`` is set."""
        wait_s = 0.0
        while not stop.wait(wait_s):
            try:
                wait_s = 0.0 if self.do_next() else self._site.settings.sweep_every_s
            except Transient as error:
                log.warning("lane.waits", destination=self._name, why=str(error))
                wait_s = PAUSE_S
            except Exception:  # the lane must survive any error of a delivery
                log.exception("lane.fault", destination=self._name)
                wait_s = PAUSE_S
        self._peer.close()

    def interrupt(self) -> None:
        """Ends the delivery under way, which is due again at once."""
        self._interrupted = True
        self._peer.close()

    def _release_if_idle(self) -> None:
        """Nothing waits for a held destination: whether it works, the next report shows."""
        with self._site.database.transaction() as session:
            if not jobs.is_any(session, self._name, *UNFINISHED_JOB_STATES):
                held_destinations.release(session, self._name)

    def _answers(self) -> bool:
        """Asks a held destination by C-ECHO or a query, once a probe is due, whether to try it.

        It stays held until it takes a report: a PACS with a full disk answers, too.
        """
        longest_s = self._site.settings.retry_longest_s
        with self._site.database.transaction() as session:
            if not held_destinations.may_be_probed(session, self._name, longest_s):
                return False
        try:
            self._peer.test()
        except (Permanent, NotAuthorised) as error:  # it answers, though not this question
            log.warning("destination.not_tested", destination=self._name, why=str(error))
        except Transient as error:
            with self._site.database.transaction() as session:
                held_destinations.hold(session, self._name, str(error), self._backoff)
            return False
        return True


def run(site: SiteContext, stop: Event) -> None:
    """Runs a lane for each destination until ``stop`` is set.

    Deliveries under way are finished then, if they take no longer than ``STOP_S``.
    """
    lanes = [Lane(site, name) for name in sorted(site.settings.destinations)]
    threads = {Thread(target=lane.run, args=(stop,), name="lane"): lane for lane in lanes}
    for thread in threads:
        thread.start()
    log.info("lanes.started", destinations=len(lanes))
    stop.wait()
    ends = time.monotonic() + STOP_S
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    for thread, lane in threads.items():
        while thread.is_alive():
            lane.interrupt()
            thread.join(PAUSE_S)
