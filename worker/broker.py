"""The broker as it fails: what is wrong with it in one line, and keys of ours that are unusable."""

import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions as redis

from lumbar.log import get_logger

log = get_logger()

NO_CLUSTER = "cluster mode is not supported: use Sentinel or one server"

# The first that an error, or one of its causes, is an instance of says what to do.
REMEDIES: tuple[tuple[type[BaseException], str], ...] = (
    (redis.AuthenticationError, "correct the user and password in LUMBAR_BROKER_URL"),
    (redis.AuthenticationWrongNumberOfArgsError, "correct the password in LUMBAR_BROKER_URL"),
    (redis.NoPermissionError, "permit it to the user in LUMBAR_BROKER_URL (ACL SETUSER)"),
    (ssl.SSLError, "set LUMBAR_BROKER_CA to the CA of its certificate, which names its host"),
    (redis.ReadOnlyError, "it is a replica at present"),
    (redis.OutOfMemoryError, "it is full: raise its maxmemory"),
    (redis.BusyLoadingError, "it is starting"),
    (redis.ClusterError, NO_CLUSTER),
    (redis.ClusterCrossSlotError, NO_CLUSTER),
    (redis.AskError, NO_CLUSTER),  # and MovedError
    (redis.ResponseError, "it refuses a command"),
)
NO_REMEDY = "is it running, and is LUMBAR_BROKER_URL right?"
WRONG_TYPE = "WRONGTYPE"  # the error of a command on a key of another type
MAX_REASON = 200  # characters


def broker_fault(error: BaseException, broker_url: str) -> str:
    """One line: which broker, what it or the network said, and what to do. No password.

    The text of an error that is not the server's or the network's may quote a message, and is left
    out.
    """
    links = list(_chain(error))
    known = ((link, what) for kind, what in REMEDIES for link in links if isinstance(link, kind))
    theirs = [link for link in links if isinstance(link, redis.RedisError | OSError)]
    link, remedy = next(known, (theirs[-1] if theirs else None, NO_REMEDY))
    reason = " ".join(str(link).split())[:MAX_REASON].rstrip(".") if link else type(error).__name__
    for secret in filter(None, (part.password for part in map(urlsplit, broker_url.split(";")))):
        reason = reason.replace(secret, "***")
    return f"the broker at {_without_user(broker_url)}: {reason}; {remedy}"


def remove_wrong_type(channel: Any, queue: str) -> None:
    """Removes a key that has the name of a queue of ours and is no list.

    Raises:
        RedisError, OSError: Redis does not answer or permit it.
    """
    with channel.conn_or_acquire() as client:
        if client.type(queue) not in {b"list", b"none"}:
            client.delete(queue)
            log.error("broker.key_removed", queue=queue, why="it was no list")


def _without_user(broker_url: str) -> str:
    """The URL's schemes, hosts and ports: user, password and options are left out."""
    parts = map(urlsplit, broker_url.split(";"))
    return ";".join(f"{part.scheme}://{part.netloc.rpartition('@')[2]}" for part in parts)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then its cause, or what was being handled, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
