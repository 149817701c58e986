"""Sends audit messages to a syslog server (RFC 5424)."""

import os
import socket
import ssl
from urllib.parse import urlsplit

from lumbar.audit_messages import AuditLine, audit_message
from lumbar.errors import Transient, WrongSetting

APP_NAME, MESSAGE_ID = "lumbar-triage", "DICOM+RFC3881"
PRIORITY = 10 * 8 + 5  # authpriv.notice
PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
TIMEOUT_S = 10.0  # for connecting, and for each message


class Syslog:
    """A syslog server that receives audit messages.

    The URL is ``udp://`` (RFC 5426), ``tcp://`` (RFC 6587) or ``tls://`` (RFC 5425) with host and
    port.
    """

    def __init__(self, url: str) -> None:
        """Parses the URL; only ``send`` opens a connection.

        Raises:
            WrongSetting: the URL has another scheme, or no valid host and port.
        """
        try:
            parts = urlsplit(url)
            self._scheme, self._host, port = parts.scheme, parts.hostname or "", parts.port
        except ValueError:
            self._scheme, self._host, port = "", "", None
        if self._scheme not in PORTS or not self._host:
            raise WrongSetting(
                "LUMBAR_SYSLOG: expected udp://host:port, tcp://host:port or tls://host:port"
            )
        self._port = port or PORTS[self._scheme]

    def send(self, lines: list[AuditLine]) -> None:
        """Sends the lines in order.

        Raises:
            Transient: the server is unreachable; some lines may have arrived.
        """
        hostname = socket.gethostname()
        try:
            if self._scheme == "udp":
                with socket.socket(self._family(), socket.SOCK_DGRAM) as udp:
                    for line in lines:
                        udp.sendto(_framed(line, hostname), (self._host, self._port))
                return
            with socket.create_connection((self._host, self._port), TIMEOUT_S) as plain:
                if self._scheme == "tls":
                    with ssl.create_default_context().wrap_socket(
                        plain, server_hostname=self._host
                    ) as secure:
                        self._stream(secure, lines, hostname)
                else:
                    self._stream(plain, lines, hostname)
        except OSError as error:
            raise Transient(
                f"the syslog server does not accept audit messages ({type(error).__name__})"
            ) from error

    def _family(self) -> socket.AddressFamily:
        return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0][0]

    @staticmethod
    def _stream(connection: socket.socket, lines: list[AuditLine], hostname: str) -> None:
        for line in lines:
            message = _framed(line, hostname)
            connection.sendall(f"{len(message)} ".encode() + message)


def _framed(line: AuditLine, hostname: str) -> bytes:
    """A syslog message: header, no structured data, the XML after a UTF-8 byte order mark."""
    when = line.happened_at.isoformat(timespec="milliseconds")
    head = f"<{PRIORITY}>1 {when} {hostname} {APP_NAME} {os.getpid()} {MESSAGE_ID} - "
    return head.encode() + b"\xef\xbb\xbf" + audit_message(line, hostname)
