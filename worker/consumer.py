"""A worker's connection to the broker, kept up whatever happens there.

Celery's own consumer makes a lost connection anew, but ends the worker after any other error, such
as Redis having become a replica, being full, or refusing a command.
"""

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.worker import consumer, state
from kombu import Connection
from kombu.transport.virtual import Message

from lumbar.log import get_logger
from worker.broker import broker_fault, remove_wrong_type

log = get_logger()

# Celery says, without the error, what ``broker.awaited`` has said with it.
logging.getLogger(consumer.Consumer.__module__).addFilter(
    lambda record: record.funcName != "on_connection_error_after_connected"
)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
STEADY_S = 10.0  # without an error; after that the next wait is the first one again


class Consumer(consumer.Consumer):
    """Waits for notifications, and does a job for each."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.channel_errors = (Exception,)  # none of them ends the worker
        self._failures, self._failed_at = 0, 0.0

    def create_task_handler(self, promise: object = None) -> Callable[[Message], None]:
        """Runs the task that a message names; nothing else in it is used."""

        def on_message(message: Message) -> None:
            try:
                self.app.tasks[message.headers["task"]]()
            except Exception:  # the job's row says what is to become of it
                log.exception("task.fault")

        return on_message

    def ensure_connected(self, conn: Connection) -> Connection:
        """Connects, however long the broker is away; a worker that is told to stop does."""
        conn.ensure_connection(
            lambda error, wait_s: self._log(error),
            interval_start=1,
            interval_step=1,
            interval_max=int(LONGEST_WAIT_S),
            callback=state.maybe_shutdown,
        )
        return conn

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Waits before the next attempt, longer each time."""
        self._log(exc)
        self._wait()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Removes what makes our queues unusable and closes the connection."""
        self._log(exc)
        with suppress(Exception):  # the broker may be away
            for queue in self.app.amqp.queues.consume_from:
                remove_wrong_type(self.connection.default_channel, queue)  # type: ignore[union-attr]
        super().on_connection_error_after_connected(exc)
        self._wait()

    def _log(self, error: Exception) -> None:
        log.warning("broker.awaited", why=broker_fault(error, self.app.conf.broker_url))

    def _wait(self) -> None:
        steady = time.monotonic() - self._failed_at > STEADY_S
        self._failures = 1 if steady else self._failures + 1
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (self._failures - 1))
        ends = time.monotonic() + random.uniform(0.5, 1) * wait_s
        while (remaining_s := ends - time.monotonic()) > 0:
            state.maybe_shutdown()
            time.sleep(min(0.1, remaining_s))
        self._failed_at = time.monotonic()
