"""Celery: a notifier for due jobs. A message says that there is work and nothing else; losing one loses nothing.

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

# A broker that is away must not hold up the sweep: kombu's own patience is 6 s a round, or for ever.
QUICKLY = {"max_retries": 1, "interval_start": 0, "socket_connect_timeout": 2, "socket_timeout": 5}


class BrokerUnavailable(Transient):
    """The broker does not answer; the sweep rings again."""


def create_app(broker_url: str) -> Celery:
    """The Celery application, tasks not yet bound: this is all that ringing needs.

    Raises:
        WrongSetting: a broker that is not Redis.
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
    """Gives the application its tasks, for a worker to run."""
    for kind, task in tasks.items():
        app.task(name=NAMES[kind])(task)


class CeleryNotifier:
    """Rings by messages on the kind's queue."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._options = app.conf.broker_transport_options | QUICKLY

    def notify(self, kind: JobKind, due: int) -> None:
        """Sends as many messages as the queue lacks: a flushed broker is noticed, and nothing piles up."""
        if not due:
            return
        with Connection(self._app.conf.broker_url, transport_options=self._options) as connection:
            away: tuple[type[BaseException], ...] = (
                OperationalError,
                *connection.connection_errors,
                *connection.channel_errors,
            )
            try:
                queue = connection.default_channel.queue_declare(queue=_queue(kind))  # type: ignore[attr-defined]
                for _ in range(due - queue.message_count):
                    self._app.send_task(NAMES[kind], connection=connection, retry=False)
            except away as error:
                raise BrokerUnavailable(
                    "the broker does not answer; jobs wait in the database"
                ) from error


def _queue(kind: JobKind) -> str:
    return f"lumbar.{kind}"


@setup_logging.connect
def _keep_ours(**_: object) -> None:
    """That somebody listens to this signal keeps Celery from setting up any logging: ``lumbar.log`` has."""


def run_worker(app: Celery, kinds: list[JobKind]) -> None:
    """Takes jobs until told to stop; one process, one job at a time (TensorFlow does not survive a fork)."""
    queues = ",".join(map(_queue, kinds))
    options = [
        "--pool=solo",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=warning",
        f"--queues={queues}",
    ]
    app.worker_main(["--quiet", "worker", *options])
