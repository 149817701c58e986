"""`make advisories` names locked packages with known vulnerabilities, and fails."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[2]


@contextmanager
def database(*vulnerable: str) -> Iterator[str]:
    """The URL of a database like OSV, in which these packages are vulnerable."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = [{"id": "GHSA-1234", "summary": "bad", "affected": []}]
            found = query["package"]["name"] in vulnerable
            body = json.dumps({"vulns": known} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("vulnerable", "fails"), [((), False), (("jinja2",), True)])
def test_a_locked_package_with_an_advisory_is_named(vulnerable, fails):
    with database(*vulnerable) as url:
        done = subprocess.run(
            ["make", "advisories", f"ARGS=--osv-url {url}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert (done.returncode != 0) is fails, done.stderr
    assert ("GHSA-1234" in done.stdout) is fails
