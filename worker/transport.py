"""Redis as the transport of Celery, with what is no notification dropped where it is read.

kombu's own takes a queue's content for its own messages: what is not JSON, or not of their form,
ends the worker. Importing this module makes kombu use these transports for its Redis URLs.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from redis.exceptions import RedisError

from lumbar.log import get_logger
from worker.notifications import is_notification, message_id

log = get_logger()


class NotANotification(ValueError):
    """A message that ``CeleryNotifier`` did not send; ``id`` is a UUID, if it has one."""

    def __init__(self, message: object) -> None:
        super().__init__("not a notification")
        self.id = message_id(message)


class Notification(virtual.Message):
    """A message that has been checked.

    Raises:
        NotANotification: it is anything else.
    """

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        if not is_notification(payload):
            raise NotANotification(payload)
        super().__init__(payload, channel=channel, **options)


class Dropped:
    """Logs each message that is dropped; of a flood, how many more there were in each minute."""

    PERIOD_S = 60.0
    LOGGED = 50  # messages in each period

    def __init__(self, timer: Callable[[], float] = monotonic) -> None:
        self._timer = timer
        self._began_at = timer()
        self._count = 0

    def add(self, error: Exception) -> None:
        """Records a message that could not be taken because of this error."""
        self.end_period()
        self._count += 1
        if self._count <= self.LOGGED:
            identity = error.id if isinstance(error, NotANotification) else None
            log.warning("message.dropped", id=identity, error=type(error).__name__)

    def end_period(self) -> None:
        """Logs what was not logged in the last minute, if it has passed."""
        if self._timer() - self._began_at < self.PERIOD_S:
            return
        if self._count > self.LOGGED:
            log.warning("messages.dropped", count=self._count - self.LOGGED)
        self._began_at, self._count = self._timer(), 0


_dropped = Dropped()


class _DropsForeignMessages:
    """A channel; Redis has removed a message from its queue by the time it is looked at."""

    Message = Notification

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (RedisError, OSError, virtual.Empty):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next message may be ours
            _dropped.add(error)
            return None
        finally:
            _dropped.end_period()


class Channel(_DropsForeignMessages, redis.Channel):  # type: ignore[misc]
    """A channel to a Redis server."""


class SentinelChannel(_DropsForeignMessages, redis.SentinelChannel):  # type: ignore[misc]
    """A channel to the master that Redis Sentinel names."""


class Transport(redis.Transport):
    """``redis://``, ``rediss://``."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """``sentinel://``."""

    Channel = SentinelChannel


TRANSPORT_ALIASES |= {
    "redis": f"{__name__}:Transport",
    "rediss": f"{__name__}:Transport",
    "sentinel": f"{__name__}:SentinelTransport",
}
