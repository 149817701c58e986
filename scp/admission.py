"""Who may connect, and how many at once.

At the limit, a new association makes room by closing another: one of the address that holds most,
and one that stores nothing. A C-ECHO, or a few bytes now and then, is no use of an association.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from threading import Lock
from time import monotonic, sleep

from scp.connection_log import ConnectionLog

MAX_PENDING = 64  # connections that have not requested an association yet
WAIT_S = 1.0  # for an association to become idle, before a new one is rejected
IDLE_S = 1.0  # after this silence an association may be closed to admit another
UNUSED_S = 0.2  # the same, for one on which no message has arrived yet
IN_MESSAGE_S = 10.0  # the same, for one in the middle of a message
STORING_S = 10.0  # after data of an instance, an association counts as storing
STORING_BYTES = 2**16  # of an instance that must arrive to count, if it is not complete
IPV6_SITE = 64  # bits of an address; whoever has one has all of its network


@dataclass(eq=False)
class Connection:
    """A peer's TCP connection. Times are seconds of the monotonic clock."""

    socket: socket.socket  # replaced by the TLS socket once there is one
    peer: str  # its address
    log: ConnectionLog = field(default_factory=ConnectionLog)
    calling: str = ""  # its AE title, once it has requested an association; for the log
    opened_at: float = field(default_factory=monotonic)
    last_pdu_at: float = field(default_factory=monotonic)  # when the last whole PDU had arrived
    requested: bool = False  # its whole association request has arrived
    associated: bool = False
    used: bool = False  # a whole message has arrived
    in_message: bool = False  # a part of a message has arrived
    stored_at: float | None = None  # when the last part of an instance had arrived
    busy: bool = False  # a message of this peer is being handled
    closed: bool = False  # by us; the reason has been logged
    noted: set[str] = field(default_factory=set)  # what of it was odd

    @property
    def idle(self) -> bool:
        """Whether the peer has been silent for a while and nothing is being done for it."""
        limit_s = IN_MESSAGE_S if self.in_message else IDLE_S if self.used else UNUSED_S
        return not self.busy and monotonic() - self.last_pdu_at >= limit_s

    @property
    def site(self) -> IPv4Address | IPv6Network:
        """The peer's address; of IPv6, its network."""
        address = _address(self.peer)
        if isinstance(address, IPv4Address):
            return address
        return IPv6Network((address, IPV6_SITE), strict=False)

    @property
    def storing(self) -> bool:
        """Whether a part of an instance has arrived lately, or is being handled."""
        if self.stored_at is None:
            return False
        return self.busy or monotonic() - self.stored_at < STORING_S

    @property
    def unused(self) -> bool:
        """Whether it has stored nothing for a while, whatever else its peer sends."""
        limit_s = IN_MESSAGE_S if self.in_message else IDLE_S
        return not self.busy and monotonic() - (self.stored_at or self.opened_at) >= limit_s

    def note_stored(self) -> None:
        """An instance, or a large part of one, has arrived."""
        self.stored_at = monotonic()

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
            self.log.note("association.odd", peer=self.peer, calling=self.calling, why=why)

    def close(self, why: str) -> None:
        """Logs the reason, once, and shuts the connection down; callable from any thread.

        A thread that is reading from the connection wakes up and finds it closed.
        """
        if not self.closed:
            self.closed = True
            self.log.warn(
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
            self.log.note(
                "association.aborted", peer=self.peer, calling=self.calling, why="by the peer"
            )
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
        peer = _address(address)
        return not self._known or any(peer in network for network in self._known)

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

        At the limit, another association is closed for it (see ``_displaced``). Where none can be,
        it waits a little for one; False if none becomes it.
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
            displaced = None
            if len(associated) >= self._maximum_associations:
                displaced = _displaced(associated, connection)
                if displaced is None:
                    return False
                self._connections.discard(displaced)
            connection.associated = True
        if displaced is not None:
            displaced.close("idle association, closed to admit a new one")
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


def _displaced(associated: Sequence[Connection], new: Connection) -> Connection | None:
    """The association that is to make room for a new one, if any can.

    One of the site that holds most; of these an idle one, or else the one that stored last longest
    ago. Where that site holds more than the new one's would, it need not have been unused for any
    time. The only association of a site is left alone while it is storing.
    """
    held = Counter(c.site for c in associated)
    own = held[new.site] + 1

    def gives_way(connection: Connection) -> bool:
        count = held[connection.site]
        if connection.storing and count == 1:
            return False
        crowds = count > own and not connection.storing
        return connection.idle or connection.unused or crowds

    return min(
        filter(gives_way, associated),
        key=lambda c: (-held[c.site], not c.idle, c.stored_at or c.opened_at),
        default=None,
    )


def _address(peer: str) -> IPv4Address | IPv6Address:
    """An address without its zone. An IPv4 address mapped into IPv6 counts as IPv4."""
    address = ip_address(peer.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
