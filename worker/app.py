"""Celery: a doorbell for due jobs. Messages hold a job's id and nothing else; losing one loses nothing.

The settings and their reasons: ``docs/architecture.md``, "Celery".
"""

from celery import Celery
from kombu.exceptions import OperationalError

from db.tables import JobKind
from lumbar.errors import Transient, WrongSetting
from worker.local import Task

NAMES = {JobKind.ANALYSE: "analyse_study", JobKind.DELIVER: "deliver"}


class BrokerAway(Transient):
    """The broker does not answer; the sweep rings again."""


def create_app(broker_url: str) -> Celery:
    """The Celery application, tasks not yet bound: this is all that ringing needs.

    Raises:
        WrongSetting: a broker that is not Redis.
    """
    if not broker_url.startswith(("redis://", "rediss://", "redis+socket://", "unix://")):
        raise WrongSetting("LUMBAR_BROKER_URL must be a Redis URL, for instance redis://localhost:6379/0")
    app = Celery("lumbar", broker=broker_url)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_default_queue="lumbar",
        task_routes={name: {"queue": f"lumbar.{kind}"} for kind, name in NAMES.items()},
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_soft_shutdown_timeout=60.0,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
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
    """Gives the application its two tasks, for a worker to run."""
    for kind, task in tasks.items():
        app.task(name=NAMES[kind])(task)


class CeleryDoorbell:
    """Rings by a message on the job's queue."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ring(self, job_id: int, kind: JobKind) -> bool:
        try:
            self._app.send_task(NAMES[kind], [job_id], retry=False)
        except OperationalError as error:
            raise BrokerAway("the broker does not answer; jobs wait in the database") from error
        return True


def run_worker(app: Celery, kinds: list[JobKind]) -> None:
    """Takes jobs until told to stop; one process, one job at a time (TensorFlow does not survive a fork)."""
    queues = ",".join(f"lumbar.{kind}" for kind in kinds)
    options = ["--pool=solo", "--without-gossip", "--without-mingle", "--loglevel=warning", f"--queues={queues}"]
    app.worker_main(["--quiet", "worker", *options])
