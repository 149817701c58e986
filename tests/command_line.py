"""`lumbar` commands in this process: modules are imported, and networks loaded, once for all tests.

Commands that run services need a process of their own (``tests.system``).
"""

import contextlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import commands
from commands import services
from db.database import Database
from tests.stub_networks import StubNetworks


def run(
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    folder: Path,
    *,
    stdin: str = "",
    stubbed: bool = True,
) -> CompletedProcess[str]:
    """One command's exit status and output, with the given environment in the given folder.

    Its networks are stubs unless ``stubbed`` is false.
    """
    standard = {name: _stream(stdin if name == "stdin" else "") for name in STREAMS}
    with contextlib.ExitStack() as context:
        context.enter_context(contextlib.chdir(folder))
        context.enter_context(patch.dict(os.environ, environment, clear=True))
        context.enter_context(patch.multiple(sys, argv=["lumbar", *arguments], **standard))
        context.enter_context(_databases_closed())
        if stubbed:
            context.enter_context(patch.object(services, "load", lambda _: StubNetworks()))
        status = 0
        try:
            commands.main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    output, errors = (_text(standard[name]) for name in ("stdout", "stderr"))
    return CompletedProcess(arguments, status, output, errors)


STREAMS = ("stdin", "stdout", "stderr")


def _stream(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


@contextlib.contextmanager
def _databases_closed():  # type: ignore[no-untyped-def]
    """Closes the databases that a command opens; the end of its process would."""
    opened = []
    connect = Database.connect.__func__  # type: ignore[attr-defined]

    def connect_and_note(cls: type[Database], *arguments: object) -> Database:
        opened.append(connect(cls, *arguments))
        return opened[-1]

    with patch.object(Database, "connect", classmethod(connect_and_note)):
        yield
    for database in opened:
        database.close()
