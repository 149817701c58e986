"""Uploads: who may upload, what is refused while it is received, and who may see the result."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
import uvicorn
from sqlalchemy import select

from db import previews
from db.context import SiteContext
from db.models import Preview, User, UserRole
from db.types import db_now
from tests.factories.instances import ROOT
from tests.integration.upload_factory import image, read, remaining_files, row, zip_of
from tests.integration.web_client import (
    BASE_URL,
    WebClient,
    audit_rows,
    browser_client,
    count,
    token_client,
)
from tests.peers import free_port
from tests.system import wait_until
from web.app import create_app
from web.multipart import MAX_FILES

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

HEAD = b'--B\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=B"}


@pytest.fixture
def reader(site) -> WebClient:
    return browser_client(create_app(site), UserRole.READER)


def send(client: WebClient, *files: bytes, csrf: str | None = None, **fields: str):
    """Sends the form as a browser without JavaScript does: the token first, then the files."""
    form = {"csrf_token": client.csrf if csrf is None else csrf} | fields
    return client.post(
        "/upload", data=form, files=[("files", ("../../evil.dcm", content)) for content in files]
    )


def nothing_is_left(site: SiteContext) -> bool:
    folder = previews.folder(site, "")
    return count(site, Preview) == 0 and (not folder.exists() or not list(folder.iterdir()))


def limited(site: SiteContext, **settings) -> SiteContext:
    return replace(site, settings=site.settings.model_copy(update=settings))


def test_a_reader_uploads_an_image_and_sees_its_result(site, reader):
    assert 'href="/upload"' in reader.get("/").text
    assert 'type="file"' in reader.get("/upload").text
    sent = send(reader, image())
    assert sent.status_code == 303
    place = sent.headers["location"]
    name = place.rpartition("/")[2]
    assert remaining_files(site, name) == ["upload/0001"]
    assert previews.folder(site, name).stat().st_mode & 0o777 == 0o700
    waiting = reader.get(place)
    assert "waiting for a worker" in waiting.text
    assert "data-in-progress" in waiting.text
    assert reader.get(f"{place}/picture").status_code == 404
    assert not [event for event, *_ in audit_rows(site) if event == "upload.seen"]
    read(site)
    response = reader.get(place)
    assert "data-in-progress" not in response.text
    for words in (
        "Research use only",
        "Condition",
        "Severity",
        "None of these",
        "Severe",
        f"{place}/picture",
    ):
        assert words in response.text
    picture = reader.get(f"{place}/picture")
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["cache-control"] == "no-store"
    assert picture.content.startswith(b"\x89PNG")
    assert place in reader.get("/upload").text
    assert [event for event, *_ in audit_rows(site)] == [
        "worklist.seen",
        "upload.received",
        "upload.analysed",
        "upload.seen",
    ]


@pytest.mark.slow
def test_a_study_is_shown_as_a_grid_of_25(site, reader, phantom):
    study, _ = phantom(3)
    files = {str(n): path.read_bytes() for n, path in enumerate(study.rglob("*.dcm"))}
    place = send(reader, zip_of(files)).headers["location"]
    read(site)
    page = reader.get(place).text
    assert page.count('<div class="cell ') == 25
    assert "L5/S1" in page
    assert "VGG16 does not recognise the view" in page  # the stub never does


def test_the_reason_for_an_unreadable_upload_is_shown(site, reader):
    place = send(reader, b"no image").headers["location"]
    read(site)
    page = reader.get(place).text
    assert "nothing could be read" in page
    assert "The input holds no DICOM files." in page


def test_another_users_upload_is_hidden_except_from_administrators(site, reader):
    place = send(reader, image()).headers["location"]
    read(site)
    name = place.rpartition("/")[2]
    other = browser_client(reader.app, UserRole.OPERATOR)
    for response in (
        other.get(place),
        other.get(f"{place}/picture"),
        other.submit(f"{place}/forget"),
        reader.get("/upload/" + "0" * 32),
    ):
        assert response.status_code == 404
        assert "VGG16" not in response.text
    assert place not in other.get("/upload").text
    assert remaining_files(site, name) == ["picture.png"]
    assert reader.get("/upload/..%2f..%2fetc").status_code in (404, 422)
    assert browser_client(reader.app, UserRole.ADMIN).get(place).status_code == 200


def test_clients_not_signed_in_and_viewers_may_not_upload(site, reader):
    place = send(reader, image()).headers["location"]
    signed_out, viewer = WebClient(reader.app), browser_client(reader.app, UserRole.VIEWER)
    for path in ("/upload", place, f"{place}/picture"):
        assert signed_out.get(path).status_code == 303
        assert viewer.get(path).status_code == 403
    assert send(signed_out, image()).status_code == 401
    assert send(viewer, image()).status_code == 403
    assert 'href="/upload"' not in viewer.get("/").text
    assert count(site, Preview) == 1


def test_deleting_an_upload_removes_row_picture_and_result_at_once(site, reader):
    place = send(reader, image()).headers["location"]
    read(site)
    assert reader.post(f"{place}/forget").status_code == 403
    assert reader.submit(f"{place}/forget").status_code == 303
    assert nothing_is_left(site)
    assert reader.get(place).status_code == 404


@pytest.mark.parametrize(
    "case", ["none", "wrong", "after the files", "another site's page", "wrong in the header"]
)
def test_a_forged_form_leaves_nothing(site, reader, case):
    headers = {
        "another site's page": {"Origin": "https://evil.example"},
        "wrong in the header": {"X-CSRF-Token": "x"},
    }
    token = b'--B\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n'
    field = token + reader.csrf.encode() + b"\r\n"
    file = HEAD + b"image" + b"\r\n"
    body = {"none": file, "wrong": token + b"x\r\n" + file, "after the files": file + field}.get(
        case, field + file
    )
    response = reader.post(
        "/upload", content=body + b"--B--\r\n", headers=FORM | headers.get(case, {})
    )
    assert response.status_code == 403
    assert nothing_is_left(site)


@pytest.mark.parametrize("keep", [{}, {"keep": "true"}])
def test_a_user_disabled_while_the_files_are_received_leaves_nothing(site, monkeypatch, keep):
    operator = browser_client(create_app(site), UserRole.OPERATOR)
    created = previews.create

    def create(*arguments, **options):
        with site.database.transaction() as session:
            user = session.scalars(select(User)).one()
            user.role, user.disabled_at = (UserRole.READER, None) if keep else (user.role, db_now())
        return created(*arguments, **options)

    monkeypatch.setattr(previews, "create", create)
    assert send(operator, image(), **keep).status_code == 403
    assert nothing_is_left(site)


def test_the_script_sends_the_token_in_the_header_and_a_program_none(site, reader):
    body = HEAD + b"image\r\n--B--\r\n"
    assert (
        reader.post(
            "/upload", content=body, headers=FORM | {"X-CSRF-Token": reader.csrf}
        ).status_code
        == 303
    )
    assert (
        token_client(reader.app, UserRole.READER)
        .post("/upload", content=body, headers=FORM)
        .status_code
        == 303
    )


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", {}, 422),
        (b"x" * 100, {"Content-Type": "application/dicom"}, 422),
        (b"--B--\r\n", FORM, 422),
        (HEAD + b"cut short", FORM, 422),
        (b"nothing of a form", FORM, 422),
        (
            HEAD.replace(b'filename="x"', b'filename=""') + b"\r\n--B--\r\n",
            FORM,
            422,
        ),
        (
            b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
            + b"a" * 9000
            + b"\r\n--B--\r\n",
            FORM,
            413,
        ),
        (
            b"--B\r\nContent-Disposition: form-data; name="
            + b"a" * 9000
            + b"\r\n\r\n\r\n--B--\r\n",
            FORM,
            422,
        ),
        (
            HEAD + b"image\r\n--B--\r\n",
            {"Content-Type": "multipart/form-data; boundary=" + "B" * 300},
            422,
        ),
    ],
    ids=[
        "nothing",
        "no form",
        "no part",
        "cut short",
        "damaged",
        "no file chosen",
        "long field",
        "long header",
        "boundary",
    ],
)
def test_a_body_that_is_not_a_form_with_files_is_refused_with_a_reason(
    site, reader, content, headers, status
):
    response = reader.post(
        "/upload", content=content, headers={"X-CSRF-Token": reader.csrf} | headers
    )
    assert response.status_code == status
    assert 'role="alert"' in response.text
    assert nothing_is_left(site)


def test_an_empty_file_input_counts_as_no_file(site, reader):
    empty = b'--B\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\n\r\n'
    body = HEAD + b"image\r\n" + empty + b"--B--\r\n"
    sent = reader.post("/upload", content=body, headers=FORM | {"X-CSRF-Token": reader.csrf})
    name = sent.headers["location"].rpartition("/")[2]
    assert (remaining_files(site, name), row(site, name).files) == (["upload/0001"], 1)


@pytest.mark.slow
def test_too_many_files_are_refused(site, reader):
    response = send(reader, *[b""] * (MAX_FILES + 1))
    assert response.status_code == 413
    assert "put them into a zip" in response.text
    assert nothing_is_left(site)


def test_too_many_bytes_are_refused_before_and_while_they_are_received(site):
    reader = browser_client(create_app(limited(site, upload_mib=1)), UserRole.READER)
    assert send(reader, bytes(2**20 - 1000)).status_code == 303
    response = send(reader, bytes(2**20))
    assert response.status_code == 413
    assert "1 MiB" in response.text

    def pieces():
        yield HEAD
        for _ in range(3):
            yield bytes(2**19)
        yield b"\r\n--B--\r\n"

    response = reader.post(
        "/upload", content=pieces(), headers=FORM | {"X-CSRF-Token": reader.csrf}
    )
    assert response.status_code == 413
    assert count(site, Preview) == 1
    assert len(list(previews.folder(site, "").iterdir())) == 1


def test_other_upload_addresses_accept_no_more_than_a_form(site, reader):
    place = send(reader, image()).headers["location"]
    large = {"csrf_token": reader.csrf, "more": "x" * 2**20}
    for path in (f"{place}/forget", "/upload/", "/uploads"):
        assert reader.post(path, data=large).status_code == 413
    assert count(site, Preview) == 1


def test_a_full_disk_accepts_no_upload(site):
    reader = browser_client(create_app(limited(site, disk_refuse_above=0.0)), UserRole.READER)
    response = send(reader, image())
    assert response.status_code == 503
    assert "full" in response.text
    assert nothing_is_left(site)
    ready = reader.get("/readyz")
    assert (ready.status_code, "full" in ready.text) == (503, True)


def test_a_user_may_have_three_unread_uploads_until_one_is_deleted(site, reader):
    places = [send(reader, image()).headers["location"] for _ in range(3)]
    refused = send(reader, image())
    assert refused.status_code == 429
    assert "3 of your uploads" in refused.text
    assert count(site, Preview) == 3
    assert send(browser_client(reader.app, UserRole.OPERATOR), image()).status_code == 303
    reader.submit(f"{places[0]}/forget")
    assert send(reader, image()).status_code == 303


def test_an_operator_may_keep_images_and_a_reader_may_not(site, reader):
    refused = send(reader, image(), keep="yes")
    assert refused.status_code == 403
    assert nothing_is_left(site)
    assert 'name="keep"' not in reader.get("/upload").text
    operator = browser_client(reader.app, UserRole.OPERATOR)
    assert 'name="keep"' in operator.get("/upload").text
    place = send(operator, image(), keep="yes").headers["location"]
    read(site)
    assert f'href="/studies/{ROOT}.1"' in operator.get(place).text
    assert operator.get(f"/studies/{ROOT}.1").status_code == 200
    assert ("upload.kept", "worker", 1) in audit_rows(site)


@contextmanager
def served(site: SiteContext) -> Iterator[tuple[int, WebClient]]:
    """The page on a port of its own, and a client that is signed in to it."""
    app = create_app(site)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 20, lambda: "the server does not listen")
    try:
        yield port, browser_client(app, UserRole.READER)
    finally:
        server.should_exit = True
        thread.join(20)


def open_upload(port: int, client: WebClient) -> socket.socket:
    """A connection on which a chunked upload has begun."""
    ((name, value),) = client.cookies.items()
    head = (
        f"POST /upload HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Cookie: {name}={value}\r\n"
        f"X-CSRF-Token: {client.csrf}\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(head.encode())
    send_chunk(connection, HEAD)
    return connection


def send_chunk(connection: socket.socket, content: bytes) -> None:
    connection.sendall(b"%x\r\n%b\r\n" % (len(content), content))


def response_head(connection: socket.socket) -> bytes:
    connection.settimeout(20)
    return connection.recv(100)


def test_an_endless_upload_is_refused_while_it_is_received(site):
    with (
        served(limited(site, upload_mib=4)) as (port, client),
        open_upload(port, client) as connection,
    ):
        connection.setblocking(True)
        largest, sent = 0, 0
        connection.settimeout(0.05)
        while True:
            try:
                head = connection.recv(100)
                break
            except TimeoutError:
                connection.settimeout(20)
                send_chunk(connection, bytes(2**18))
                sent += 2**18
                with suppress(FileNotFoundError):  # it is refused, and removed, meanwhile
                    files = [
                        path.stat().st_size
                        for path in previews.folder(site, "").rglob("0*")
                        if path.is_file()
                    ]
                    largest = max([largest, *files])
                connection.settimeout(0.05)
            assert sent < 100 * 2**20
        assert head.startswith(b"HTTP/1.1 413")
        assert largest <= 4 * 2**20
        assert nothing_is_left(site)


def test_an_upload_that_stalls_or_is_cut_off_leaves_nothing(site):
    with served(limited(site, network_timeout_s=1.0)) as (port, client):
        with open_upload(port, client) as silent:
            wait_until(lambda: count(site, Preview) == 1, 20, lambda: "the upload has not begun")
            assert response_head(silent).startswith(b"HTTP/1.1 408")
        assert nothing_is_left(site)
        with open_upload(port, client):
            wait_until(lambda: count(site, Preview) == 1, 20, lambda: "the upload has not begun")
        began = time.monotonic()
        wait_until(lambda: nothing_is_left(site), 20, lambda: "the partial upload is still there")
        assert time.monotonic() - began < 15


def test_an_upload_deleted_while_it_is_received_is_reported(site):
    with served(site) as (port, client), open_upload(port, client) as connection:
        wait_until(lambda: count(site, Preview) == 1, 20, lambda: "the upload has not begun")
        with site.database.reading() as session:
            previews.discard(site, session.scalars(select(Preview.name)).one())
        send_chunk(connection, b"image\r\n--B--\r\n")
        send_chunk(connection, b"")
        assert response_head(connection).startswith(b"HTTP/1.1 404")
        assert nothing_is_left(site)


def test_the_page_uses_only_its_own_scripts_and_styles(site, reader):
    page = reader.get("/upload")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "style=" not in page.text
    assert reader.get(f"{BASE_URL}/static/upload.js").status_code == 200
