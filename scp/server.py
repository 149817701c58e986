"""Accepting connections: whatever waits for a peer happens in the connection's own thread."""

import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread, current_thread

from lumbar.log import get_logger
from scp.admission import Admission, Connection
from scp.connection_log import ConnectionLog
from scp.pdu_stream import Limits, read_request, send_abort

log = get_logger()

HANDSHAKE_S = 10.0
BACKLOG = 128  # connections that the system accepts before we do
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
EXHAUSTED_PAUSE_S = 0.5
STOP_S = 5.0  # for each connection to end once it is shut down

Serve = Callable[[Connection, bytes], None]  # a connection, with its A-ASSOCIATE-RQ
Refused = Callable[[Connection, str], None]  # a connection, and why


class Server:
    """The listening socket, and a thread for each connection. With ``tls``, only TLS.

    Raises:
        OSError: it cannot listen on the address and port.
    """

    def __init__(
        self,
        address: tuple[str, int],
        admission: Admission,
        limits: Limits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._admission = admission
        self._limits = limits
        self.tls = tls
        self._log = ConnectionLog()
        self._stopped = Event()
        self._threads: set[Thread] = set()  # of the connections
        # Without SO_REUSEPORT, a second receiver cannot take a part of the connections.
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        self._socket = socket.create_server(address, family=family, backlog=BACKLOG)
        self.port: int = self._socket.getsockname()[1]

    def start(self, serve: Serve, refused: Refused) -> None:
        """Accepts connections until ``stop``."""
        Thread(target=self._accept, args=(serve, refused), name="accept", daemon=True).start()

    def stop(self) -> None:
        """Stops listening and closes every connection; what was in transit is not acknowledged."""
        self._stopped.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._socket.close()
        self._admission.close_all()
        for thread in list(self._threads):
            thread.join(STOP_S)
        self._log.close()

    def _accept(self, serve: Serve, refused: Refused) -> None:
        while not self._stopped.is_set():
            try:
                stream, address = self._socket.accept()
            except OSError as error:
                self._wait_after(error)
                continue
            connection = Connection(stream, str(address[0]), self._log)
            self._admission.admit(connection)
            thread = Thread(target=self._serve, args=(connection, serve, refused), daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # no thread can be started
                self._threads.discard(thread)
                self._admission.remove(connection)
                connection.close("too many threads")
                stream.close()

    def _wait_after(self, error: OSError) -> None:
        """A failed accept is logged; where resources are exhausted, the next one would fail too."""
        if self._stopped.is_set() or error.errno == errno.ECONNABORTED:
            return
        log.error("connection.fault", error=errno.errorcode.get(error.errno or 0, "OSError"))
        if error.errno in EXHAUSTED:
            self._admission.close_oldest_pending("too many open files")
        self._stopped.wait(EXHAUSTED_PAUSE_S)

    def _serve(self, connection: Connection, serve: Serve, refused: Refused) -> None:
        """One connection, from its first byte to its end."""
        try:
            request = self._receive_request(connection, refused)
            if request is not None:
                serve(connection, request)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends this connection only
            log.error("receiver.fault", peer=connection.peer, error=type(error).__name__)
        finally:
            self._admission.remove(connection)
            connection.shut_down()
            connection.socket.close()
            self._threads.discard(current_thread())

    def _receive_request(self, connection: Connection, refused: Refused) -> bytes | None:
        """The association request; None where the connection was refused."""
        why = "PDU too slow"
        try:
            self._require_allowed(connection)
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                why = "TLS handshake failed"
                connection.socket.settimeout(min(self._limits.pdu_s, HANDSHAKE_S))
                connection.socket = self.tls.wrap_socket(
                    connection.socket, server_side=True, do_handshake_on_connect=False
                )
                connection.socket.do_handshake()
                why = "PDU too slow"
            return read_request(connection, self._limits)
        except OSError:
            # A TLS error (some are ValueErrors too), the peer closed the connection, or a timeout.
            pass
        except ValueError as error:
            why = str(error)
            send_abort(connection.socket)
        connection.close(why)
        refused(connection, why)
        return None

    def _require_allowed(self, connection: Connection) -> None:
        """Checks the peer's address.

        Raises:
            ValueError: it may not connect.
        """
        if not self._admission.allows(connection.peer):
            raise ValueError("address not allowed")
