"""Who may connect, and how many at once. Idle associations are closed to admit new ones."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from threading import Lock
from time import monotonic, sleep

from lumbar.log import get_logger

log = get_logger()

MAX_PENDING = 64  # connections that have not requested an association yet
WAIT_S = 1.0  # for an association to become idle, before a new one is rejected
IDLE_S = 1.0  # after this silence an association may be closed to admit another
UNUSED_S = 0.2  # the same, for one on which no message has arrived yet
IN_MESSAGE_S = 10.0  # the same, for one in the middle of a message


@dataclass(eq=False)
class Connection:
    """A peer's TCP connection. Times are seconds of the monotonic clock."""

    socket: socket.socket  # replaced by the TLS socket once there is one
    peer: str  # its address
    calling: str = ""  # its AE title, once it has requested an association; for the log
    opened_at: float = field(default_factory=monotonic)
    last_pdu_at: float = field(default_factory=monotonic)  # when the last whole PDU had arrived
    requested: bool = False  # its whole association request has arrived
    associated: bool = False
    used: bool = False  # a whole message has arrived
    in_message: bool = False  # a part of a message has arrived
    busy: bool = False  # a message of this peer is being handled
    closed: bool = False  # by us; the reason has been logged
    noted: set[str] = field(default_factory=set)  # what of it was odd

    @property
    def idle(self) -> bool:
        """Whether the peer has been silent for a while and nothing is being done for it."""
        limit_s = IN_MESSAGE_S if self.in_message else IDLE_S if self.used else UNUSED_S
        return not self.busy and monotonic() - self.last_pdu_at >= limit_s

    def begin_message(self) -> None:
        """A message's command has arrived, and its data set follows."""
        self.in_message = True

    def end_message(self) -> None:
        """A whole message has arrived."""
        self.in_message, self.used = False, True

    def note(self, why: str) -> None:
        """Logs, once, that the peer does something odd, which is ignored."""
        if why not in self.noted:
            self.noted.add(why)
            log.info("association.odd", peer=self.peer, calling=self.calling, why=why)

    def close(self, why: str) -> None:
        """Logs the reason, once, and shuts the connection down; callable from any thread.

        A thread that is reading from the connection wakes up and finds it closed.
        """
        if not self.closed:
            self.closed = True
            log.warning(
                "association.aborted" if self.associated else "connection.refused",
                peer=self.peer,
                calling=self.calling,
                why=why,
            )
        self.shut_down()

    def close_after_peer(self) -> None:
        """The same after the peer has aborted the association or closed the connection."""
        if not self.closed:
            self.closed = True
            why = "by the peer"
            log.info("association.aborted", peer=self.peer, calling=self.calling, why=why)
        self.shut_down()

    def shut_down(self) -> None:
        """Shuts the connection down below TLS: two threads must not use one SSL object."""
        with suppress(OSError):  # it has ended already
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Admission:
    """Admits connections and associations.

    It bounds what untrusted peers can occupy, so that a peer that has something to send is served.
    """

    def __init__(
        self,
        maximum_associations: int,
        known_addresses: Sequence[IPv4Network | IPv6Network],
        maximum_pending: int = MAX_PENDING,
    ) -> None:
        self._maximum_associations = maximum_associations
        self._maximum_pending = maximum_pending
        self._known = tuple(known_addresses)
        self._lock = Lock()
        self._connections: set[Connection] = set()

    def allows(self, address: str) -> bool:
        """Whether this address may connect. An IPv4 address mapped into IPv6 counts as IPv4."""
        peer = ip_address(address.partition("%")[0])
        mapped = getattr(peer, "ipv4_mapped", None) or peer
        return not self._known or any(mapped in network for network in self._known)

    def admit(self, connection: Connection) -> None:
        """Registers a connection.

        Where the maximum of connections have not requested an association yet, the oldest of them
        is closed.
        """
        with self._lock:
            pending = [c for c in self._connections if not c.requested]
            oldest = None
            if len(pending) >= self._maximum_pending:
                oldest = min(pending, key=lambda c: c.opened_at)
            self._connections.add(connection)
            if oldest is not None:
                self._connections.discard(oldest)
        if oldest is not None:
            oldest.close("oldest pending connection, closed to admit a new one")

    def close_oldest_pending(self, why: str) -> None:
        """Closes the oldest connection that has requested nothing yet, if there is one."""
        with self._lock:
            pending = [c for c in self._connections if not c.requested]
            oldest = min(pending, key=lambda c: c.opened_at, default=None)
        if oldest is not None:
            oldest.close(why)

    def associate(self, connection: Connection) -> bool:
        """Turns a connection into an association, if the limit allows.

        At the limit, the association that has been idle longest is closed. Where none is idle, it
        waits a little for one; False if none becomes it.
        """
        connection.requested = True
        ends = monotonic() + WAIT_S
        while not self._try_associate(connection):
            if monotonic() > ends:
                return False
            sleep(WAIT_S / 20)
        return True

    def _try_associate(self, connection: Connection) -> bool:
        with self._lock:
            associated = [c for c in self._connections if c.associated]
            longest_idle = None
            if len(associated) >= self._maximum_associations:
                idle = [c for c in associated if c.idle]
                if not idle:
                    return False
                longest_idle = min(idle, key=lambda c: c.last_pdu_at)
                self._connections.discard(longest_idle)
            connection.associated = True
        if longest_idle is not None:
            longest_idle.close("idle association, closed to admit a new one")
        return True

    def remove(self, connection: Connection) -> None:
        """Forgets a connection that has ended."""
        with self._lock:
            self._connections.discard(connection)

    def close_all(self) -> None:
        """Shuts every connection down, without a log line for each."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.closed = True
            connection.shut_down()
