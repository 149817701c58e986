"""Who may be connected: addresses, and how many at once. Who does nothing gives place to who comes."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from threading import Lock
from time import monotonic

import structlog

log = structlog.get_logger()

MAXIMUM_WAITING = 64  # connections that are not associations yet
IDLE_S = 1.0  # an association that was silent for so long may be pushed out by another
UNUSED_S = 0.2  # one on which nothing was asked for yet, after so long


@dataclass(eq=False)
class Connection:
    """A peer's TCP connection; ``heard_at`` moves with each whole PDU."""

    socket: socket.socket  # replaced by the TLS socket once there is one
    peer: str  # its address
    opened_at: float = field(default_factory=monotonic)
    heard_at: float = field(default_factory=monotonic)
    associated: bool = False
    used: bool = False  # a message came
    busy: bool = False  # we are at work on what it sent
    closed: bool = False  # by us, and it was said why

    @property
    def idle(self) -> bool:
        """Nothing was heard from the peer for a while, and nothing is being done for it."""
        return not self.busy and monotonic() - self.heard_at >= (IDLE_S if self.used else UNUSED_S)

    def close(self, why: str) -> None:
        """Ends the connection from any thread and says why; who reads from it wakes up and finds it ended."""
        if not self.closed:
            self.closed = True
            log.warning(
                "association.aborted" if self.associated else "connection.refused",
                peer=self.peer,
                why=why,
            )
        self.hang_up()

    def hang_up(self) -> None:
        """Ends the connection below TLS: an SSL object must not be used by two threads at once."""
        with suppress(OSError):  # it has ended already
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Door:
    """Bounds what strangers can occupy, so that a peer that has something to say is heard."""

    def __init__(
        self, maximum_associations: int, known_addresses: Sequence[IPv4Network | IPv6Network]
    ) -> None:
        self._maximum_associations = maximum_associations
        self._known = tuple(known_addresses)
        self._lock = Lock()
        self._connections: set[Connection] = set()

    def knows(self, address: str) -> bool:
        """Whether this address may connect; an IPv4 address mapped into IPv6 is the IPv4 one."""
        found = ip_address(address.partition("%")[0])
        mapped = getattr(found, "ipv4_mapped", None) or found
        return not self._known or any(mapped in network for network in self._known)

    def admit(self, connection: Connection) -> None:
        """Lets a connection in. Where too many are no associations yet, the oldest of these is closed."""
        with self._lock:
            waiting = [c for c in self._connections if not c.associated]
            oldest = (
                min(waiting, key=lambda c: c.opened_at) if len(waiting) >= MAXIMUM_WAITING else None
            )
            self._connections.add(connection)
            if oldest is not None:
                self._connections.discard(oldest)
        if oldest is not None:
            oldest.close("gave place to another")

    def associate(self, connection: Connection) -> bool:
        """Makes a connection an association. False where there are as many as may be, and none of them is idle."""
        with self._lock:
            associated = [c for c in self._connections if c.associated]
            idlest = None
            if len(associated) >= self._maximum_associations:
                idle = [c for c in associated if c.idle]
                if not idle:
                    return False
                idlest = min(idle, key=lambda c: c.heard_at)
                self._connections.discard(idlest)
            connection.associated = True
        if idlest is not None:
            idlest.close("gave place to another")
        return True

    def leave(self, connection: Connection) -> None:
        """Forgets a connection that has ended."""
        with self._lock:
            self._connections.discard(connection)

    def close(self) -> None:
        """Ends all connections."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.closed = True
            connection.hang_up()
