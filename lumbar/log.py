"""Log events: a name and fields, ids only, one line each. Never patient data.

A driver's or a library's text may quote what it met, a patient's name in a row's key or in a damaged element. So of an
exception only its type and its places are told, unless it is one of ours, and of another library's log record only its
place and, where the text is kept apart from the values, the text without them.
"""

import logging
import sys
import threading
import warnings
from collections.abc import MutableMapping
from pathlib import PurePath
from traceback import extract_tb
from typing import Any

import structlog

from lumbar.errors import LumbarError

PLACES = 12  # of an exception, the innermost
log = structlog.get_logger()


def configure(log_format: str = "console", level: int = logging.INFO) -> None:
    """Sends every event of this process to standard error as ``console`` or ``json`` lines, other libraries' too."""
    render = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], bool_as_flag=False
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _tell_exception,
            lambda logger, name, event: _escape(render(logger, name, event)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Others()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)  # so that no library does, and takes the next line's effect away
    warnings.showwarning = _tell_warning
    sys.excepthook = lambda kind, error, trace: log.critical(
        "process.fault", exc_info=(kind, error, trace)
    )
    threading.excepthook = lambda failed: log.error("thread.fault", exc_info=failed.exc_value)
    sys.unraisablehook = lambda failed: log.error("object.fault", exc_info=failed.exc_value)


class _Others(logging.Handler):
    """The records of libraries, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        template = {"text": record.msg} if record.args and isinstance(record.msg, str) else {}
        place = _place(record.pathname, record.lineno, record.funcName)
        tell(
            "library.record", library=record.name, place=place, **template, exc_info=record.exc_info
        )


def _tell_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    *_: object,
    **__: object,
) -> None:
    log.warning("library.warning", category=category.__name__, place=_place(filename, lineno, None))


def _tell_exception(
    _: object, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Puts an exception's type, those of its causes, and its places in the stead of its text."""
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if not isinstance(error, BaseException):
        return event
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    event["error"] = " < ".join(f"{type(one).__module__}.{type(one).__qualname__}" for one in chain)
    if isinstance(error, LumbarError):
        event["why"] = str(error)
    frames = extract_tb(error.__traceback__)[-PLACES:]
    event["at"] = " > ".join(_place(frame.filename, frame.lineno, frame.name) for frame in frames)
    return event


def _place(file: str, line: int | None, function: str | None) -> str:
    """`worker/runner.py:40 perform`: enough to find it, and nothing of the machine."""
    return f"{'/'.join(PurePath(file).parts[-2:])}:{line} {function or ''}".rstrip()


def _escape(line: str | bytes) -> str:
    """One line an event, whatever a field holds: a line break, a terminal's control sequence, text turned around."""
    text = line if isinstance(line, str) else line.decode()
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
