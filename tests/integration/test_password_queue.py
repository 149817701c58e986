"""Many attempts at passwords at once: few are looked at, some wait, and no other page notices."""

import threading
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network

import pytest

from db import passwords, sign_in
from db.models import UserRole
from db.sign_in import Browser
from tests.browser.served import new_site, serving
from tests.factories.accounts import PASSWORD
from tests.integration.web_client import browser_client
from tests.system import wait_until
from web.app import create_app
from web.auth import cookie_name, known_cookie_name
from web.password_queue import AT_ONCE, MAX_OF_ONE, MAX_STRANGERS, MAX_WAITING

ATTEMPTS = 60


class SlowHashes:
    """Passwords are looked at for as long as a test wants; all are wrong."""

    def __init__(self, monkeypatch):
        self.finish = threading.Event()
        self.seen, self.now, self.most = [], 0, 0
        self._lock = threading.Lock()
        monkeypatch.setattr(passwords, "matches", self._matches)

    def _matches(self, password_hash, password):
        with self._lock:
            self.seen.append(password)
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.finish.wait(60)
        with self._lock:
            self.now -= 1
        return False


@pytest.fixture
def served(tmp_path):
    with serving(new_site(tmp_path / "home", web_proxy=(ip_network("127.0.0.1"),))) as served:
        yield served


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def request(served, path, form=None, **headers):
    """The status and headers of a response."""
    data = urllib.parse.urlencode(form).encode() if form else None
    sent = urllib.request.Request(served.root + path, data, headers)
    try:
        with urllib.request.build_opener(NoRedirect).open(sent, timeout=60) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


class Attempts:
    """Attempts that are all made at once; ``answers`` are those that have come back."""

    def __init__(self, pool, number, attempt):
        self.answers = []
        self._lock = threading.Lock()
        for n in range(number):
            pool.submit(self._run, attempt, n)

    def _run(self, attempt, n):
        answer = attempt(n)
        with self._lock:
            self.answers.append(answer)

    def wait_for(self, number):
        wait_until(lambda: len(self.answers) >= number, 30, lambda: str(len(self.answers)))
        assert len(self.answers) == number

    def statuses(self):
        return [status for status, _ in self.answers]


def attempt_by(served, name="reader", **headers):
    form = {"name": name, "password": "a wrong one"}
    return request(served, "/sign-in", form, **headers)


@pytest.mark.parametrize(
    ("address", "waiting"),
    [(lambda n: "192.0.2.1", MAX_OF_ONE), (lambda n: f"192.0.2.{n}", MAX_STRANGERS)],
    ids=["one address", "many addresses"],
)
def test_a_flood_is_refused_beyond_a_few_and_nobody_else_is(served, monkeypatch, address, waiting):
    first = sign_in.sign_in(served.site.database, "viewer", PASSWORD, Browser("10.0.0.1"))
    hashes = SlowHashes(monkeypatch)
    with ThreadPoolExecutor(ATTEMPTS + 1) as pool:
        flood = Attempts(
            pool,
            ATTEMPTS,
            lambda n: attempt_by(served, f"guess {n}", **{"X-Forwarded-For": address(n)}),
        )
        flood.wait_for(ATTEMPTS - waiting)
        assert set(flood.statuses()) == {429}
        assert all(int(headers["Retry-After"]) > 0 for _, headers in flood.answers)
        # Others are served, and a known browser waits its turn instead of being refused.
        assert request(served, "/sign-in")[0] == 200
        assert request(served, "/readyz")[0] == 200
        cookie = f"{known_cookie_name(served.site)}={first.known_cookie}"
        known = Attempts(pool, 1, lambda n: attempt_by(served, "viewer", Cookie=cookie))
        hashes.finish.set()
        flood.wait_for(ATTEMPTS)
        known.wait_for(1)
    assert flood.statuses().count(401) == waiting
    assert known.statuses() == [401]
    assert hashes.most == AT_ONCE


def test_one_user_who_guesses_the_current_password_is_refused_beyond_a_few(served, monkeypatch):
    hashes = SlowHashes(monkeypatch)
    browser = browser_client(create_app(served.site), UserRole.VIEWER)
    name = cookie_name(served.site)
    cookie = f"{name}={browser.cookies[name]}"
    form = {"csrf_token": browser.csrf, "current": "a guess", "password": "another good one"}
    with ThreadPoolExecutor(ATTEMPTS) as pool:
        flood = Attempts(
            pool, ATTEMPTS, lambda n: request(served, "/password", form, Cookie=cookie)
        )
        flood.wait_for(ATTEMPTS - MAX_OF_ONE)
        assert set(flood.statuses()) == {429}
        assert request(served, "/", Cookie=cookie)[0] == 200
        hashes.finish.set()
        flood.wait_for(ATTEMPTS)
    assert flood.statuses().count(409) == MAX_OF_ONE
    assert hashes.most == AT_ONCE


def test_the_places_of_a_flood_are_free_again_afterwards(served):
    for _ in range(2):
        with ThreadPoolExecutor(MAX_WAITING) as pool:
            flood = Attempts(pool, MAX_WAITING, lambda n: attempt_by(served, f"guess {n}"))
            flood.wait_for(MAX_WAITING)
        assert attempt_by(served)[0] == 401
