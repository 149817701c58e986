"""Redis as the transport of Celery, with what is no notification dropped where it is read.

kombu's own takes a queue's content for its own messages: what is not JSON, or not of their form,
ends the worker. Importing this module makes kombu use these transports for its Redis URLs.
"""

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


class _DropsForeignMessages:
    """A channel; Redis has removed a message from its queue by the time it is looked at."""

    Message = Notification

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (RedisError, OSError, virtual.Empty):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next message may be ours
            identity = error.id if isinstance(error, NotANotification) else None
            log.warning("message.dropped", id=identity, error=type(error).__name__)
            return None


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
