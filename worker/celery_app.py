"""Celery as a notifier.

A message says only that work of a kind is due; losing one loses no work.

The settings and their reasons: ``docs/architecture.md``, "Celery".
"""

from celery import Celery
from celery.signals import setup_logging
from kombu import Connection
from kombu.exceptions import OperationalError

from db.models import JobKind
from lumbar.errors import Transient, WrongSetting
from worker.inline import Task

NAMES = {JobKind.ANALYSE: "analyse_study", JobKind.DELIVER: "deliver", JobKind.PREVIEW: "preview"}

# An unreachable broker must not hold up the sweep: by default kombu waits 6 s a round, or for ever.
SHORT_TIMEOUTS = {
    "max_retries": 1,
    "interval_start": 0,
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
}


class BrokerUnavailable(Transient):
    """The broker does not answer; the next sweep notifies again."""


def create_app(broker_url: str) -> Celery:
    """The Celery application without its tasks, which is all that a notifier needs.

    Raises:
        WrongSetting: the broker is not Redis.
    """
    if not broker_url.startswith(("redis://", "rediss://", "redis+socket://", "unix://")):
        raise WrongSetting(
            "LUMBAR_BROKER_URL must be a Redis URL, for instance redis://localhost:6379/0"
        )
    app = Celery("lumbar", broker=broker_url)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_default_queue="lumbar",
        task_routes={name: {"queue": _queue(kind)} for kind, name in NAMES.items()},
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_soft_shutdown_timeout=60.0,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "socket_connect_timeout": 5,
            "socket_timeout": 15,
        },
    )
    return app


def bind(app: Celery, tasks: dict[JobKind, Task]) -> None:
    """Registers the tasks that a worker runs."""
    for kind, task in tasks.items():
        app.task(name=NAMES[kind])(task)


class CeleryNotifier:
    """Notifies by messages on the kind's queue."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._options = app.conf.broker_transport_options | SHORT_TIMEOUTS

    def notify(self, kind: JobKind, due: int) -> None:
        """Sends messages until ``due`` wait: a flushed broker is refilled, and none pile up.

        Raises:
            BrokerUnavailable: nothing, or not everything, was sent.
        """
        if not due:
            return
        with Connection(self._app.conf.broker_url, transport_options=self._options) as connection:
            unreachable: tuple[type[BaseException], ...] = (
                OperationalError,
                *connection.connection_errors,
                *connection.channel_errors,
            )
            try:
                queue = connection.default_channel.queue_declare(queue=_queue(kind))  # type: ignore[attr-defined]
                for _ in range(due - queue.message_count):
                    self._app.send_task(NAMES[kind], connection=connection, retry=False)
            except unreachable as error:
                raise BrokerUnavailable(
                    "the broker does not answer; jobs wait in the database"
                ) from error


def _queue(kind: JobKind) -> str:
    return f"lumbar.{kind}"


@setup_logging.connect
def _keep_our_logging(**_: object) -> None:
    """Being connected, keeps Celery from configuring logging: ``lumbar.log`` has done so."""


def run_worker(app: Celery, kinds: list[JobKind]) -> None:
    """Does jobs until stopped, one at a time in this process: TensorFlow cannot survive a fork."""
    queues = ",".join(map(_queue, kinds))
    options = [
        "--pool=solo",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=warning",
        f"--queues={queues}",
    ]
    app.worker_main(["--quiet", "worker", *options])
