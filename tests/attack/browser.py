"""A browser without a screen, and raw connections, from any address of the loopback network."""

import re
import socket
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlencode

TIMEOUT_S = 30.0
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Answer:
    status: int
    text: str


class Browser:
    """Keeps cookies; each request has a connection of its own; redirects are not followed."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self._port, self._address = port, address
        self.cookies: dict[str, str] = {}
        self._csrf = ""

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def post(self, path: str, **form: str) -> Answer:
        """Sends a form of ours, with its CSRF token."""
        body = urlencode({"csrf_token": self._csrf} | form).encode()
        return self.request("POST", path, body, **{"Content-Type": FORM})

    def upload(self, content: bytes) -> Answer:
        """Uploads a file."""
        boundary = "attack"
        parts = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n'
            f"{self._csrf}\r\n"
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.zip"\r\n'
            "\r\n"
        )
        body = parts.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return self.request("POST", "/upload", body, **{"Content-Type": kind})

    def sign_in(self, name: str, password: str) -> int:
        """The HTTP status; 303 once signed in."""
        status = self.post("/sign-in", name=name, password=password).status
        if status == 303:
            (self._csrf,) = set(
                re.findall(r'name="csrf_token" value="([^"]+)"', self.get("/me").text)
            )
        return status

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        connection = HTTPConnection(
            "127.0.0.1", self._port, timeout=TIMEOUT_S, source_address=(self._address, 0)
        )
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {"Sec-Fetch-Site": "same-origin", "Cookie": cookies} | headers
        try:
            connection.request(method, path, body or None, sent)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
            for cookie in response.headers.get_all("Set-Cookie", []):
                name, _, value = cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            return Answer(response.status, text)
        finally:
            connection.close()


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    """A raw TCP connection."""
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_S, (address, 0))
