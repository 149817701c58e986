"""The floods: each a function that attacks for some seconds and returns what it saw.

Every flood runs in a process of its own, so that it does not slow down what is measured beside it.
"""

import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException

from tests.attack.archives import deep_zip, folder_entries, undeclared_zeros, zeros
from tests.attack.browser import Browser, connect
from tests.attack.target import PASSWORD


@dataclass(frozen=True)
class Attack:
    """Where to, and how: ``browser`` signs in anew with the cookies of a session."""

    web_port: int
    dicom_port: int
    seconds: float
    rng: random.Random

    def over(self, began: float) -> bool:
        return time.monotonic() - began > self.seconds


def repeated(attack: Attack, parallel: int, one: Callable[[int], str]) -> Counter[str]:
    """Calls ``one`` in so many threads until the time is up, and counts what came of it."""
    began = time.monotonic()

    def attempts(number: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        while not attack.over(began):
            try:
                seen[one(number)] += 1
            except (OSError, HTTPException) as error:
                seen[type(error).__name__] += 1
                time.sleep(0.05)
        return seen

    with ThreadPoolExecutor(parallel) as pool:
        return sum(pool.map(attempts, range(parallel)), Counter())


def address(number: int) -> str:
    """An address of the loopback network."""
    return f"127.0.{1 + number // 200}.{1 + number % 200}"


def wrong_current_passwords(attack: Attack) -> Counter[str]:
    """A viewer gives 60 wrong current passwords at once, again and again"""
    browser = _signed_in(attack, "vera")

    def one(number: int) -> str:
        answer = browser.post("/password", current=f"wrong {number}", password=PASSWORD + " 2")
        return str(answer.status)

    return repeated(attack, 60, one)


def right_sign_ins(attack: Attack) -> Counter[str]:
    """A viewer signs in 40 times at once, again and again"""

    def one(number: int) -> str:
        return str(Browser(attack.web_port).sign_in("vera", PASSWORD))

    return repeated(attack, 40, one)


def many_names(attack: Attack) -> Counter[str]:
    """Nobody signs in under 60 names from 60 addresses at once"""

    def one(number: int) -> str:
        browser = Browser(attack.web_port, address(number))
        return str(browser.post("/sign-in", name=f"name{number}", password="wrong").status)

    return repeated(attack, 60, one)


def guesses(attack: Attack) -> Counter[str]:
    """100 guesses of one password at once, from one address; then its owner signs in elsewhere"""

    def one(number: int) -> str:
        browser = Browser(attack.web_port, "127.0.9.9")
        return str(browser.post("/sign-in", name="anna", password=f"guess {number}").status)

    with ThreadPoolExecutor(100) as pool:
        seen = Counter(pool.map(_tolerant(one), range(100)))
    seen["tried"] = seen["401"]
    owner = Browser(attack.web_port, "127.0.9.10")
    seen["the owner is let in"] = owner.sign_in("anna", PASSWORD) == 303
    return seen


def silent_connections(attack: Attack) -> Counter[str]:
    """500 connections from 50 addresses that send nothing"""
    return _connections(attack, 500, lambda number: b"")


def half_sent_requests(attack: Attack) -> Counter[str]:
    """500 connections from one address that send half a request, and then a byte a second"""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "
    return _connections(attack, 500, lambda number: head, trickle=b"x", addresses=1)


def slow_bodies(attack: Attack) -> Counter[str]:
    """300 sign-ins whose forms arrive a byte a second"""
    head = (
        b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000\r\n\r\n"
    )
    return _connections(attack, 300, lambda number: head, trickle=b"n")


def unread_responses(attack: Attack) -> Counter[str]:
    """200 connections that request pages by the thousand and read nothing"""
    request = b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    return _connections(attack, 200, lambda number: request * 100, trickle=request)


def made_up_tokens(attack: Attack) -> Counter[str]:
    """40 programs with tokens that do not exist"""

    def one(number: int) -> str:
        token = f"lumbar_{attack.rng.getrandbits(200):x}"
        browser = Browser(attack.web_port, address(number))
        return str(browser.get("/api/v1/studies", Authorization=f"Bearer {token}").status)

    return repeated(attack, 40, one)


def forged_requests(attack: Attack) -> Counter[str]:
    """Another site's page makes an administrator's browser change things, 20 at once"""
    browser = _signed_in(attack, "ada")

    def one(number: int) -> str:
        headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}
        return str(browser.request("POST", "/users/vera", b"disabled=true", **headers).status)

    return repeated(attack, 20, one)


def exports(attack: Attack) -> Counter[str]:
    """A reader exports everything, 20 times at once"""
    browser = _signed_in(attack, "anna")
    paths = ["/findings.csv", "/reviews.zip", "/api/v1/findings", "/quality"]
    return repeated(attack, 20, lambda number: str(browser.get(paths[number % 4]).status))


def hostile_archives(attack: Attack) -> Counter[str]:
    """A reader uploads zips that want to be gigabytes, or millions of files"""
    browser = _signed_in(attack, "anna")
    seen: Counter[str] = Counter()
    for content in (undeclared_zeros(), folder_entries(), zeros(), deep_zip()):
        with suppress(OSError, HTTPException):
            seen[str(browser.upload(content).status)] += 1
    began = time.monotonic()
    while not attack.over(began):  # the worker opens them meanwhile
        time.sleep(0.1)
    return seen


def strangers(attack: Attack) -> Counter[str]:
    """200 connections to the receiver that are silent, drip, or are no DICOM"""
    contents = [
        b"",
        b"\x01\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff",
    ]
    return _connections(
        attack, 200, lambda number: contents[number % 4], trickle=b"\0", port=attack.dicom_port
    )


FLOODS = {
    flood.__name__.replace("_", "-"): flood
    for flood in (
        wrong_current_passwords,
        right_sign_ins,
        many_names,
        guesses,
        silent_connections,
        half_sent_requests,
        slow_bodies,
        unread_responses,
        made_up_tokens,
        forged_requests,
        exports,
        hostile_archives,
        strangers,
    )
}


def _signed_in(attack: Attack, name: str) -> Browser:
    """Signs in, however long it is refused because of an earlier flood."""
    browser = Browser(attack.web_port, "127.0.8.8")
    if not _until(attack, lambda: browser.sign_in(name, PASSWORD) == 303):
        raise SystemExit(f"{name} cannot sign in")
    return browser


def _until(attack: Attack, succeeds: Callable[[], bool]) -> bool:
    began = time.monotonic()
    while not attack.over(began):
        with suppress(OSError, HTTPException):
            if succeeds():
                return True
        time.sleep(0.2)
    return False


def _tolerant(one: Callable[[int], str]) -> Callable[[int], str]:
    def called(number: int) -> str:
        try:
            return one(number)
        except (OSError, HTTPException) as error:
            return type(error).__name__

    return called


def _connections(
    attack: Attack,
    count: int,
    first: Callable[[int], bytes],
    *,
    trickle: bytes = b"",
    addresses: int = 50,
    port: int = 0,
) -> Counter[str]:
    """Keeps so many connections open, makes those anew that are closed, and sends little."""
    began, seen = time.monotonic(), Counter[str]()
    held: dict[int, socket.socket] = {}
    while not attack.over(began):
        for number in range(count):
            if attack.over(began):
                break
            try:
                if number in held:
                    _keep_busy(held[number], trickle)
                else:
                    held[number] = connect(port or attack.web_port, address(number % addresses))
                    held[number].setblocking(False)
                    seen["opened"] += 1
                    held[number].send(first(number))
            except BlockingIOError:
                pass
            except OSError:
                seen["closed"] += 1
                if number in held:
                    held.pop(number).close()
        time.sleep(0.5)
    for connection in held.values():
        connection.close()
    return seen


def _keep_busy(connection: socket.socket, trickle: bytes) -> None:
    """Sends a little more; raises OSError if the server has closed the connection."""
    if trickle:
        connection.send(trickle)
    elif connection.recv(1000) == b"":
        raise ConnectionResetError


def _run() -> None:
    """``python -m tests.attack.floods NAME WEB_PORT DICOM_PORT SECONDS SEED``."""
    name, web_port, dicom_port, seconds, seed = sys.argv[1:]
    attack = Attack(int(web_port), int(dicom_port), float(seconds), random.Random(int(seed)))
    sys.stdout.write(json.dumps(FLOODS[name](attack)))


if __name__ == "__main__":
    _run()
