"""Accepting connections: everything that waits for a peer happens in the connection's own thread.

A peer is handed to pynetdicom, which polls, only once its association request is wholly there; until then it costs a
thread that sleeps in a read.
"""

import socket
import ssl
import sys
from collections.abc import Callable
from socketserver import BaseServer
from threading import Thread
from time import monotonic
from typing import Any

import structlog
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from scp.admission import Connection, Door
from scp.limits import ABORT, Limits, guard, read_request

log = structlog.get_logger()

HANDSHAKE_S = 10.0


class Server(ThreadedAssociationServer):
    """Its attributes are set before it serves; with ``tls``, it speaks nothing else."""

    request_queue_size = 128
    door: Door
    limits: Limits
    tls: ssl.SSLContext | None = None
    refused: Callable[[Connection, str], None]  # is told of whoever was not let in, and why

    def process_request(self, request: Any, client_address: Any) -> None:
        connection = Connection(request, str(client_address[0]))
        self.door.admit(connection)
        Thread(target=self._see_through, args=(connection, client_address), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that could not even be given a thread."""
        log.error(
            "connection.fault", peer=str(client_address[0]), error=type(sys.exception()).__name__
        )

    def stop(self) -> None:
        """Ends listening and every connection: nothing in them was acknowledged."""
        BaseServer.shutdown(self)
        self.server_close()
        self.door.close()

    def _see_through(self, connection: Connection, client_address: Any) -> None:
        """From the connection's first byte to its end."""
        try:
            request = self._request(connection)
            if request is not None:
                association = Visitor(connection, request, client_address, self).association
                association.start()
                association.join()
                self._note_end(association, connection)
        finally:
            self.door.leave(connection)
            self.shutdown_request(connection.socket)

    def _note_end(self, association: Any, connection: Connection) -> None:
        """What ended in disorder and was not said yet."""
        if association.is_released or association.is_rejected or connection.closed:
            return
        if connection.associated:
            log.info(
                "association.aborted", peer=connection.peer, why="by the peer, or for what it sent"
            )
        else:
            connection.close("association request cannot be read")

    def _request(self, connection: Connection) -> bytes | None:
        """The association request; None where the connection was refused."""
        deadline = monotonic() + self.limits.pdu_s
        why = "PDU too slow"
        try:
            if not self.door.knows(connection.peer):
                raise ValueError("address not allowed")
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
            pass  # TLS failed (also in a way that is a ValueError), the peer hung up, or time is up
        except ValueError as error:
            why = str(error)
            _abort(connection.socket)
        connection.close(why)
        self.refused(connection, why)
        return None


class Visitor(RequestHandler):
    """Makes a connection an association, guarded and not started yet."""

    def __init__(
        self, connection: Connection, asked: bytes, client_address: Any, server: Server
    ) -> None:
        self._connection = connection
        self._asked = asked
        self._limits = server.limits
        super().__init__(connection.socket, client_address, server)

    def handle(self) -> None:
        self.association = self._create_association()
        guard(self.association, self._connection, self._limits, self._asked)


def _abort(stream: socket.socket) -> None:
    try:
        stream.settimeout(1)
        stream.sendall(ABORT)
    except OSError:
        pass  # it need not hear it
