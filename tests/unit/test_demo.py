"""The demo that waits for its user ends with the system that it shows."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from commands import demo
from lumbar.errors import Permanent
from lumbar.settings import Settings


def test_a_demo_whose_system_ends_says_so_and_ends(tmp_path, monkeypatch):
    @contextmanager
    def system(settings, log):
        log.write_text("what it said last")
        with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as process:
            yield process

    monkeypatch.setattr(demo, "_system", system)
    monkeypatch.setattr(demo, "_demo_settings", lambda home, port: Settings(home=home))
    monkeypatch.setattr(demo, "_add_user", lambda settings: "password")
    monkeypatch.setattr(demo, "_run", lambda *_: None)
    with pytest.raises(Permanent, match=r"`lumbar up` has ended with status 3\nwhat it said last"):
        demo._demonstrate(tmp_path, end=False, studies=6)
