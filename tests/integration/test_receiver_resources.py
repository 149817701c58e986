"""A disk that refuses, no descriptors, a full backlog: the sender keeps what was not stored."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from db.database import DatabaseUnavailable
from db.registrar import Registrar
from lumbar.errors import WrongSetting
from lumbar.settings import Settings
from lumbar.store.files import MARKER
from scp.receiver import Receiver
from tests.factories.instances import make_slice
from tests.integration.test_receiver import association, listening, stored
from tests.system import wait_until

# None of this depends on the kind of database.
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENOENT)
LARGE = {"Rows": 512, "Columns": 512, "PixelData": bytes(2 * 512 * 512)}


def refused(logged):
    return [entry for entry in logged if entry["event"] == "instance.refused"]


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("call", ["os.open", "os.write", "os.fsync", "os.pread", "Path.rename"])
def test_whatever_call_on_the_disk_fails_the_answer_is_a700(site, monkeypatch, call, number):
    def fails(*arguments, **options):
        raise OSError(number, os.strerror(number))

    with listening(site) as running, association(running.port) as assoc:
        assert assoc.send_c_store(make_slice(number=1)).Status == 0
        # The file for the next image is opened after the answer.
        wait_until(lambda: bool(list(site.store.root.rglob("*.part"))), 20, lambda: "no file")
        with monkeypatch.context() as patch, capture_logs() as logged:
            patch.setattr(f"lumbar.store.files.{call}", fails)
            if call == "os.open":  # of the next file, which is opened beforehand
                assert assoc.send_c_store(make_slice(number=1)).Status == 0
            assert assoc.send_c_store(make_slice(number=2, **LARGE)).Status == 0xA700
            assert assoc.send_c_store(make_slice(number=3)).Status == 0xA700
        assert [entry["status"] for entry in refused(logged)] == ["A700", "A700"]
        assert os.strerror(number) in refused(logged)[0]["why"]
        assert assoc.send_c_store(make_slice(number=2)).Status == 0
    assert len(stored(site)) == 2
    assert not list(site.store.root.rglob("*.part"))


@contextmanager
def small_disk(folder):
    """2 MiB; skips the test where mounting is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_refuses_large_and_small_images_alike(site, tmp_path):
    with small_disk(tmp_path / "home" / "store"):
        site.store.create()
        with listening(site, disk_refuse_above=1, disk_remove_above=1) as running:
            with association(running.port) as assoc, capture_logs() as logged:
                filler = site.store.root / "filler"
                filler.write_bytes(b"\0" * (2**21 - 2**18))
                assert assoc.send_c_store(make_slice(number=1, **LARGE)).Status == 0xA700
                assert assoc.send_c_store(make_slice(number=2)).Status == 0
                with filler.open("ab") as file, pytest.raises(OSError, match="No space"):
                    file.write(b"\0" * 2**21)
                assert assoc.send_c_store(make_slice(number=3)).Status == 0xA700
                filler.unlink()
                assert assoc.send_c_store(make_slice(number=1, **LARGE)).Status == 0
            assert {entry["status"] for entry in refused(logged)} == {"A700"}
            assert len(stored(site)) == 2


def test_a_store_that_is_not_mounted_is_noticed_and_never_written_beside(site, tmp_path):
    root = site.store.root
    with listening(site) as running, association(running.port) as assoc:
        assert assoc.send_c_store(make_slice(number=1)).Status == 0
        root.rename(tmp_path / "unmounted")
        root.mkdir()
        with capture_logs() as logged:
            assert assoc.send_c_store(make_slice(number=2)).Status == 0xA700
        assert "mount the disk that holds it" in refused(logged)[0]["why"]
        assert list(root.iterdir()) == []
        root.rmdir()
        (tmp_path / "unmounted").rename(root)
        assert assoc.send_c_store(make_slice(number=2)).Status == 0
    assert len(stored(site)) == 2


def test_a_database_that_another_disk_hides_is_noticed_and_nothing_is_stored_beside_it(site):
    file = Path(site.database.engine.url.database)
    own, other = file.with_name("own"), file.with_name("other")
    other.write_bytes(b"")
    with listening(site) as running, association(running.port) as assoc:
        assert assoc.send_c_store(make_slice(number=1)).Status == 0
        file.rename(own)
        with capture_logs() as logged:
            for hide in (lambda: None, lambda: other.rename(file)):  # unmounted, or another mounted
                hide()
                assert assoc.send_c_store(make_slice(number=2)).Status == 0xA700
                with (
                    pytest.raises(DatabaseUnavailable, match="right disk"),
                    site.database.reading() as session,
                ):
                    session.execute(text("SELECT 1"))
        (event, *_) = [entry for entry in logged if entry["event"] == "database.replaced"]
        assert f"inode {own.stat().st_ino}, now none" in event["why"]
        own.rename(file)
        assert assoc.send_c_store(make_slice(number=2)).Status == 0
        with site.database.reading() as session:
            session.execute(text("SELECT 1"))
    assert len(stored(site)) == 2


def test_folders_removed_under_it_are_made_again(site):
    with listening(site) as running, association(running.port) as assoc:
        assert assoc.send_c_store(make_slice(number=1)).Status == 0
        Registrar(site).register_arrived()
        for folder in ("arrived", "instances"):
            shutil.rmtree(site.store.root / folder)
        assert assoc.send_c_store(make_slice(number=2)).Status == 0
        assert Registrar(site).register_arrived() == 1


def test_a_new_site_gets_its_store_and_an_old_one_must_have_it(site):
    shutil.rmtree(site.store.root)
    site.prepare_store()
    with listening(site) as running, association(running.port) as assoc:
        assert assoc.send_c_store(make_slice()).Status == 0
    stored(site)
    site.prepare_store()
    (site.store.root / MARKER).unlink()
    site.prepare_store()  # of a version that did not mark it
    assert site.store.mounted
    shutil.rmtree(site.store.root)
    with pytest.raises(Exception, match="mount the disk"):
        site.prepare_store()


def test_a_full_backlog_is_a700_until_images_are_registered(site):
    with listening(site, maximum_unregistered=4) as running, association(running.port) as assoc:
        statuses = [assoc.send_c_store(make_slice(number=n)).Status for n in range(1, 8)]
        assert statuses[:3] == [0, 0, 0]
        assert statuses[-1] == 0xA700
        while Registrar(site).register_arrived():
            pass
        wait_until(lambda: assoc.send_c_store(make_slice(number=9)).Status == 0, 10, str)


def test_a_second_receiver_on_the_port_is_refused(site):
    with listening(site) as running:
        settings = Settings(home=site.settings.home, port=running.port)
        with pytest.raises(WrongSetting, match="cannot listen"):
            Receiver(settings, site.database, site.store)


# Uses up its descriptors but two, until a line arrives.
LIMITED = """
import os, resource, sys
from db.context import SiteContext
from lumbar import log
from lumbar.settings import Settings
from scp.receiver import Receiver
log.configure("logfmt")
site = SiteContext.unchecked(Settings())
with Receiver(site.settings, site.database, site.store) as receiver:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        for descriptor in held[-2:]:
            os.close(descriptor)
    print(receiver.port, flush=True)
    sys.stdin.readline()
    for descriptor in held[:-2]:
        os.close(descriptor)
    sys.stdin.read()
"""


def test_with_its_descriptors_used_up_it_logs_pauses_and_goes_on(site):
    environment = {
        "PYTHONPATH": str(Path.cwd()),
        "LUMBAR_HOME": str(site.settings.home),
        "LUMBAR_PORT": "0",
    }
    with (
        subprocess.Popen(
            [sys.executable, "-c", LIMITED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        ) as process,
        ExitStack() as stack,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline())
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
        for connection in silent:
            stack.enter_context(connection)
        wait_for_line(process.stderr, "event=connection.fault error=EMFILE")
        process.stdin.write("\n")
        process.stdin.flush()
        with association(port) as assoc:
            assert assoc.send_c_store(make_slice()).Status == 0
        process.kill()
        _, log = process.communicate()
    assert log.count("error=EMFILE") < 50  # it paused


def wait_for_line(stream, part):
    for line in stream:
        if part in line:
            return
    pytest.fail(f"no line with {part}")
