"""Celery as a notifier.

A message says only that work of a kind is due; losing one loses no work.

The settings and their reasons: ``docs/architecture.md``, "Celery".
"""

import ssl
from concurrent.futures import Future, wait
from threading import Event, Thread

from celery import Celery
from celery.worker import WorkController, state
from kombu import Connection, Exchange, Queue
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from db.models import JobKind
from lumbar.errors import Permanent, Transient
from lumbar.log import get_logger
from lumbar.settings import Settings
from worker import transport  # noqa: F401 - makes kombu use our transports
from worker.broker import WRONG_TYPE, broker_fault, remove_wrong_type
from worker.inline import Task
from worker.notifications import NAMES, queue_name

log = get_logger()

# An unreachable broker must not hold up the sweep: by default kombu waits 6 s a round, or for ever.
SHORT_TIMEOUTS = {"socket_connect_timeout": 2, "socket_timeout": 5}
NOTIFY_S = 5.0  # the time of a call in all
BATCH = 1000  # messages in a round trip
ONE_ATTEMPT = {"max_retries": 1, "interval_start": 0}


class BrokerUnavailable(Transient):
    """The broker does not answer, or refuses; the next sweep notifies again."""


def create_app(settings: Settings) -> Celery:
    """The Celery application without its tasks, which is all that a notifier needs."""
    app = Celery("lumbar", broker=settings.broker_url)
    app.conf.update(
        accept_content=["json"],
        task_ignore_result=True,
        task_default_exchange="",  # which needs no bindings in Redis
        task_default_queue=queue_name(JobKind.ANALYSE),
        task_queues=[
            Queue(queue_name(kind), Exchange(""), queue_name(kind), no_ack=True) for kind in JobKind
        ],
        task_routes={name: {"queue": queue_name(kind)} for kind, name in NAMES.items()},
        worker_consumer="worker.consumer:Consumer",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        broker_use_ssl=_tls(settings),
        broker_channel_error_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "ack_emulation": False,
            "priority_steps": [0],
            "socket_keepalive": True,
            "health_check_interval": 10,
            "master_name": settings.broker_master,
            "sentinel_kwargs": {
                "password": settings.broker_sentinel_password,
                "retry": Retry(NoBackoff(), 0),  # the next Sentinel is asked at once
                **SHORT_TIMEOUTS,
            },
            "socket_connect_timeout": 5,
            "socket_timeout": 15,
        },
    )
    return app


def _tls(settings: Settings) -> dict[str, object] | None:
    """How a broker's certificate is verified; kombu by itself would not."""
    if not str(settings.broker_url).startswith("rediss:"):
        return None
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": str(settings.broker_ca) if settings.broker_ca else None,
    }


def bind(app: Celery, tasks: dict[JobKind, Task]) -> None:
    """Registers the tasks that a worker runs."""
    for kind, task in tasks.items():
        app.task(name=NAMES[kind])(task)


class CeleryNotifier:
    """Notifies by messages on the kind's queue."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._sent: Future[None] | None = None  # of the last call

    def notify(self, kind: JobKind, due: int) -> None:
        """Sends messages until ``due`` wait: a flushed broker is refilled, and none pile up.

        Takes at most ``NOTIFY_S`` seconds, however slowly the broker or the network answers.

        Raises:
            BrokerUnavailable: nothing, or not everything, was sent, as far as known.
        """
        if not due:
            return
        if self._sent is None or self._sent.done():
            self._sent = Future()
            arguments = (kind, due, self._sent)
            Thread(target=self._send, args=arguments, name="notify", daemon=True).start()
            wait([self._sent], NOTIFY_S)
        if not self._sent.done():
            raise self._unavailable(TimeoutError(f"it did not answer within {NOTIFY_S:g} s"))
        try:
            self._sent.result()
        except (OperationalError, BatchPublishError, RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BrokerUnavailable:
        fault = broker_fault(error, self._app.conf.broker_url)
        return BrokerUnavailable(f"{fault}; jobs wait in the database")

    def _send(self, kind: JobKind, due: int, sent: Future[None]) -> None:
        """Sends them in one round trip, or one for each ``BATCH`` of them."""
        options = SHORT_TIMEOUTS | ONE_ATTEMPT
        try:
            with (
                self._app.connection_for_write(transport_options=options) as connection,
                self._app.amqp.Producer(connection, auto_declare=False) as producer,
            ):
                missing = due - _waiting(connection, queue_name(kind))
                with producer.batch(BATCH):  # type: ignore[attr-defined]
                    for _ in range(missing):
                        self._app.send_task(NAMES[kind], producer=producer, retry=False)
            sent.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised by ``notify``
            sent.set_exception(error)


def _waiting(connection: Connection, queue: str) -> int:
    """How many messages wait in a queue.

    Raises:
        RedisError: Redis refuses.
    """
    channel = connection.default_channel
    try:
        return int(channel.queue_declare(queue=queue).message_count)  # type: ignore[attr-defined]
    except RedisError as error:
        if WRONG_TYPE not in str(error):
            raise
        remove_wrong_type(channel, queue)
        return 0


def run_worker(app: Celery, stop: Event) -> None:
    """Does jobs until ``stop``, one at a time in this process: TensorFlow cannot survive a fork.

    Raises:
        Permanent: it ended though nobody told it to.
    """
    Thread(target=_stop_celery, args=(stop,), name="worker-stop", daemon=True).start()
    worker = WorkController(
        app=app,
        pool_cls="solo",
        concurrency=1,
        queues=[queue_name(kind) for kind in NAMES],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    if not stop.is_set():
        raise Permanent("the worker ended by itself; the reason is in the log")


def _stop_celery(stop: Event) -> None:
    """Celery looks at this flag between two jobs, and at least once a second."""
    stop.wait()
    log.info("worker.stopping")
    state.should_stop = 0  # type: ignore[assignment]
