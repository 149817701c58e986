"""Accepting connections: whatever waits for a peer happens in the connection's own thread.

A peer is handed to pynetdicom, which polls, only once its whole association request has arrived.
Until then it costs one thread that sleeps in a read.
"""

import socket
import ssl
import sys
from collections.abc import Callable
from socketserver import BaseServer
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from lumbar.log import get_logger
from scp.admission import Admission, Connection
from scp.limits import ABORT, Limits, apply_limits, read_request

if TYPE_CHECKING:
    from pynetdicom.association import Association

log = get_logger()

HANDSHAKE_S = 10.0

Address = tuple[str, int] | tuple[str, int, int, int]  # of IPv4, of IPv6


class Server(ThreadedAssociationServer):
    """The listening socket. Its attributes are set before it serves; with ``tls``, only TLS."""

    request_queue_size = 128
    admission: Admission
    limits: Limits
    tls: ssl.SSLContext | None = None
    on_refused: Callable[[Connection, str], None]  # called with each refused connection and why

    def process_request(self, request: Any, client_address: Any) -> None:
        """Called by the accept thread: admits the connection and starts its thread."""
        connection = Connection(request, str(client_address[0]))
        self.admission.admit(connection)
        Thread(target=self._serve, args=(connection, client_address), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs that a connection could not even be given a thread."""
        log.error(
            "connection.fault", peer=str(client_address[0]), error=type(sys.exception()).__name__
        )

    def stop(self) -> None:
        """Stops listening and closes every connection; what was in transit is not acknowledged."""
        BaseServer.shutdown(self)
        self.server_close()
        self.admission.close_all()

    def _serve(self, connection: Connection, client_address: Address) -> None:
        """One connection, from its first byte to its end."""
        try:
            request = self._receive_request(connection)
            if request is not None:
                handler = AssociationHandler(connection, request, client_address, self)
                handler.association.start()
                handler.association.join()
                self._log_abnormal_end(handler.association, connection)
        finally:
            self.admission.remove(connection)
            self.shutdown_request(connection.socket)

    def _log_abnormal_end(self, association: "Association", connection: Connection) -> None:
        """Logs an end that was neither regular nor logged before."""
        if association.is_released or association.is_rejected or connection.closed:
            return
        if connection.associated:
            log.info(
                "association.aborted",
                peer=connection.peer,
                why="by the peer, or because of a protocol error",
            )
        else:
            connection.close("association request cannot be read")

    def _receive_request(self, connection: Connection) -> bytes | None:
        """The association request; None where the connection was refused."""
        deadline = monotonic() + self.limits.pdu_s
        why = "PDU too slow"
        try:
            self._require_allowed(connection)
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                why = "TLS handshake failed"
                connection.socket.settimeout(min(self.limits.pdu_s, HANDSHAKE_S))
                connection.socket = self.tls.wrap_socket(
                    connection.socket, server_side=True, do_handshake_on_connect=False
                )
                connection.socket.do_handshake()
                why = "PDU too slow"
            return read_request(connection.socket, deadline)
        except OSError:
            # A TLS error (some are ValueErrors too), the peer closed the connection, or a timeout.
            pass
        except ValueError as error:
            why = str(error)
            _abort(connection.socket)
        connection.close(why)
        self.on_refused(connection, why)
        return None

    def _require_allowed(self, connection: Connection) -> None:
        """Checks the peer's address.

        Raises:
            ValueError: It may not connect.
        """
        if not self.admission.allows(connection.peer):
            raise ValueError("address not allowed")


class AssociationHandler(RequestHandler):
    """Turns a connection into an association with limits, which has not been started yet."""

    association: "Association"

    def __init__(
        self, connection: Connection, request_pdu: bytes, client_address: Address, server: Server
    ) -> None:
        self._connection = connection
        self._request_pdu = request_pdu
        self._limits = server.limits
        super().__init__(connection.socket, client_address, server)

    def handle(self) -> None:
        """Called by the constructor; the base class would start the association here."""
        self.association = self._create_association()
        apply_limits(self.association, self._connection, self._limits, self._request_pdu)


def _abort(stream: socket.socket) -> None:
    try:
        stream.settimeout(1)
        stream.sendall(ABORT)
    except OSError:
        pass  # the peer has closed the connection
