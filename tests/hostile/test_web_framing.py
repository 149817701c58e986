"""Requests whose bounds two servers might see at different places: one response, then the end.

RFC 9112. What follows such a request on its connection is never answered: it may be another's.
"""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.web_clients import Answers, Page, all_received, listening

SECOND = b"GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOST = b"Host: localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
UPLOAD = b"POST /upload HTTP/1.1\r\n" + HOST  # the only request that may have chunks
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "a length and chunks": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a length and chunks, folded": POST
    + b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a length and chunks of no body": GET
    + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "two lengths in one": POST + b"Content-Length: 5, 6\r\n\r\nabcde",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nabcde",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nabcde",
    "a length in hexadecimal": POST + b"Content-Length: 0x5\r\n\r\nabcde",
    "a length of 5000 digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nabcde",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "another coding, then chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks, then another coding": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunks twice": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks with a control character": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk of a bad size": UPLOAD + CHUNKED + b"xyz\r\n\r\n",
    "a chunk of a negative size": UPLOAD + CHUNKED + b"-1\r\n\r\n",
    "a chunk of a huge size": UPLOAD + CHUNKED + b"" + b"f" * 21 + b"\r\n",
    "a chunk that ends elsewhere": UPLOAD + CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
    "an endless chunk extension": UPLOAD + CHUNKED + b"1;" + b"a" * 20_000,
    "a flood of tiny chunks": UPLOAD + CHUNKED + b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n",
    "a cookie that takes quadratic time": GET + b'Cookie: a="' + b"\\" * 3000 + b'"\r\n\r\n',
    "cookies of 5000 bytes": GET + b"Cookie: a=b\r\n" + b"Cookie: c=" + b"d" * 5000 + b"\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": GET + HOST + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n" + HOST + b"\r\nSM\r\n\r\n",
    "HTTP/3.0": b"GET / HTTP/3.0\r\n" + HOST + b"\r\n",
    "another host in the target": b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a proxy's connection": b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without a slash": b"GET admin HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a NUL": b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target beyond ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a field with a NUL": GET + b"X: a\x00b\r\n\r\n",
    "a field with a bare CR": GET + b"X: a\rContent-Length: 5\r\n\r\n",
    "a field without a name": GET + b": a\r\n\r\n",
    "a field without a colon": GET + b"X\r\n\r\n",
    "a first field that is folded": b"GET / HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n",
    "fields of 20,000 bytes": GET + b"X: a\r\n" * 4000 + b"\r\n",
    "a target of 20,000 bytes": b"GET /?" + b"&" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "a control character": b"\x00\r\n\r\n",
}
ANSWERED = {
    "an ordinary request": GET + b"\r\n",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "chunks": UPLOAD + CHUNKED + b"5\r\nabcde\r\n0\r\n\r\n",
    "chunks with an extension": UPLOAD + CHUNKED + b"5;a=b\r\nabcde\r\n0\r\nX: trailer\r\n\r\n",
    "small chunks": UPLOAD + CHUNKED + (b"100\r\n" + b"a" * 256 + b"\r\n") * 1000 + b"0\r\n\r\n",
    "a few tiny chunks": UPLOAD + CHUNKED + b"1\r\na\r\n" * 50 + b"0\r\n\r\n",
    "a folded field, one line by now": GET + b"X: a\r\n b\r\n\r\n",
    "an upgrade to HTTP/2": GET
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    "an upgrade to a WebSocket": GET
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AA==\r\n"
    + b"Sec-WebSocket-Version: 13\r\n\r\n",
    "an expectation": POST + b"Content-Length: 5\r\nExpect: 200-maybe\r\n\r\nabcde",
    "a thousand fields": GET + b"X: a\r\n" * 1000 + b"\r\n",
}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with listening(Answers()) as page:
        yield page


def statuses(page: Page, sent: bytes) -> list[int]:
    """Of all responses until the server closes the connection."""
    with page.sent(sent) as connection:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", all_received(connection))]


@pytest.mark.parametrize("name", REFUSED)
def test_an_ambiguous_request_is_refused_and_nothing_after_it_is_answered(
    page: Page, name: str
) -> None:
    assert statuses(page, REFUSED[name] + SECOND) == [400]


@pytest.mark.parametrize("head", [POST, GET, b"POST /upload/x HTTP/1.1\r\n" + HOST])
def test_chunks_are_refused_before_they_are_read(page: Page, head: bytes) -> None:
    with page.sent(head + CHUNKED) as connection:
        assert re.findall(rb"HTTP/1\.1 (\d+)", all_received(connection)) == [b"411"]


@pytest.mark.parametrize("name", ANSWERED)
def test_a_request_of_one_meaning_is_answered_and_so_is_the_next(page: Page, name: str) -> None:
    last = SECOND.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with page.sent(ANSWERED[name]) as connection:
        received = b""
        while b"answered" not in received:
            received += connection.recv(1000)
        connection.sendall(last)
        received += all_received(connection)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"200"]


def test_requests_that_do_not_wait_for_their_answers_get_one(page: Page) -> None:
    """RFC 9112 section 9.3.2: a client has to expect that the server closes instead."""
    assert statuses(page, (GET + b"\r\n") * 100) == [200]


def test_a_body_is_invited_once_it_is_read(page: Page) -> None:
    with page.sent(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abcde")
        assert b"answered" in connection.recv(1000) + connection.recv(1000)


PIECES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", HOST, b"\r\n", b"\n", b"\r", b" ", b"\t"),
        *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Connection: close\r\n", b"0\r\n\r\n", b"5\r\nabcde\r\n", b"abcde", b"\x00", b"\xff"),
        *(b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"HTTP/1.0", b"X: y\r\n", b":"),
    ]
)


@given(st.lists(PIECES, max_size=20).map(b"".join))
@settings(max_examples=150, deadline=None)
def test_whatever_is_sent_the_page_goes_on(page: Page, sent: bytes) -> None:
    with page.sent(sent) as connection:
        connection.shutdown(1)
        answer = all_received(connection)
    assert b" 500 " not in answer
    assert page.status() == 200
