"""`lumbar up` serves the page, from a scanner to the worklist; and when it refuses to start."""

import re
import socket
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from urllib.error import HTTPError, URLError

import pytest

from tests.acceptance.checks import assert_one_line
from tests.peers import free_port
from tests.system import System, wait_until

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"


class Browser:
    """Keeps cookies and follows redirects."""

    def __init__(self, port):
        self.root = f"http://127.0.0.1:{port}"
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path):
        with self._opener.open(self.root + path, timeout=10) as response:
            return response.read().decode()

    def post(self, path, **form):
        with self._opener.open(
            self.root + path, urllib.parse.urlencode(form).encode(), timeout=10
        ) as response:
            return response.read().decode()

    def answers(self):
        try:
            return self.get("/readyz") == "ready\n"
        except (HTTPError, URLError, OSError):
            return False


def test_a_study_sent_by_a_scanner_is_on_the_page(system, phantom):
    port = free_port()
    system.set(web="true", web_port=str(port))
    system.start()
    browser = Browser(port)
    wait_until(browser.answers, 60, system.tail)
    assert "lumbar users add NAME --role admin" in browser.get("/")
    assert (
        system.lumbar("users", "add", "anna", "--role", "reader", stdin=PASSWORD + "\n").returncode
        == 0
    )
    folder, truth = phantom(0)
    assert system.dcmsend(folder).returncode == 0
    system.wait_for_states({truth.study_instance_uid: "analysed"})
    listed = browser.post("/sign-in", name="anna", password=PASSWORD, to="/")
    (uid,) = set(re.findall(r'data-study="([\d.]+)"', listed))
    assert uid == truth.study_instance_uid
    assert "Research use only" in listed
    assert browser.get(f"/studies/{uid}").count('class="cell ') == 25
    assert "lumbar_jobs" in browser.get("/metrics")
    assert system.terminate(60) == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"web_host": "0.0.0.0"}, "passwords would cross the network in the clear"),
        ({"web_host": "0.0.0.0", "web_proxy": "127.0.0.1"}, "there are no users yet"),
    ],
)
def test_the_page_listens_beyond_this_machine_only_with_a_user_and_https(
    tmp_path, settings, reason
):
    system = System(tmp_path / "cli", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    system.set(web_port="0", **settings)
    assert_one_line(system.lumbar("web"), 2, reason)


def test_a_port_in_use_is_named(tmp_path):
    system = System(tmp_path / "cli", {})
    assert system.lumbar("db", "upgrade").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        system.set(web_port=str(occupied.getsockname()[1]))
        assert_one_line(system.lumbar("web"), 2, "set LUMBAR_WEB_PORT")
