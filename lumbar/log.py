"""Log events, one line each: a name and fields (identifiers only). Never patient data.

The text of a driver's or library's exception may quote the values it was handling: a patient's
name in a row's key, or in a damaged element. An exception is therefore logged by its type and its
source locations, with its text only where it is one of ours. A record of another library is logged
by its source location and, where text and values are separate, by the text without the values.
"""

import logging
import sys
import threading
import warnings
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import PurePath
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, TextIO, cast

from lumbar.errors import LumbarError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_TRACE_FRAMES = 12  # innermost frames of an exception's traceback that are logged


class _StandardError:
    """It may be closed, or its disk full: what is logged is lost then, and nothing else."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            if sys.stderr is not None:  # of a process that was started without one
                sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()


class _Logger:
    """structlog's logger, imported when the first event is logged: most commands log nothing."""

    def __getattr__(self, name: str) -> Any:
        import structlog

        return getattr(structlog.get_logger(), name)


def get_logger() -> "FilteringBoundLogger":
    """The logger of a module's events."""
    return _Logger()


log = get_logger()


def configure(log_format: str = "console", level: int = logging.INFO) -> None:
    """Sends every event of this process, other libraries' included, to standard error.

    ``log_format``: ``console`` or ``json``.
    """
    import structlog

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
            _render_exception,
            lambda logger, name, event: _escape(render(logger, name, event)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)
    # Called first: a library's later call then has no effect and does not undo the next line.
    logging.captureWarnings(True)
    warnings.showwarning = _log_warning
    sys.excepthook = lambda kind, error, trace: log.critical(
        "process.fault", exc_info=(kind, error, trace)
    )
    threading.excepthook = lambda failed: log.error("thread.fault", exc_info=failed.exc_value)
    sys.unraisablehook = lambda failed: log.error("object.fault", exc_info=failed.exc_value)


class _LibraryHandler(logging.Handler):
    """Logs other libraries' records as our events."""

    def emit(self, record: logging.LogRecord) -> None:
        write = log.error if record.levelno >= logging.ERROR else log.warning
        template = {"text": record.msg} if record.args and isinstance(record.msg, str) else {}
        write(
            "library.record",
            library=record.name,
            place=_location(record.pathname, record.lineno, record.funcName),
            **template,
            exc_info=record.exc_info,
        )


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    *_: object,
    **__: object,
) -> None:
    place = _location(filename, lineno, None)
    log.warning("library.warning", category=category.__name__, place=place)


def _render_exception(
    _: object, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replaces an exception by its type, the types of its causes, and its source locations."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        error = sys.exc_info()[1]
    else:
        error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if not isinstance(error, BaseException):
        return event
    types = [f"{type(link).__module__}.{type(link).__qualname__}" for link in _chain(error)]
    event["error"] = " < ".join(types)
    if isinstance(error, LumbarError):
        event["why"] = str(error)
    frames = extract_tb(error.__traceback__)[-MAX_TRACE_FRAMES:]
    locations = [_location(frame.filename, frame.lineno, frame.name) for frame in frames]
    event["at"] = " > ".join(locations)
    return event


def _chain(error: BaseException) -> list[BaseException]:
    """The exception, its cause or context, and so on; each once."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _location(file: str, line: int | None, function: str | None) -> str:
    """`worker/runner.py:40 perform`: identifies the source line without this machine's paths."""
    return f"{'/'.join(PurePath(file).parts[-2:])}:{line} {function or ''}".rstrip()


def _escape(line: str | bytes) -> str:
    """One line per event, even if a field holds line breaks, control sequences or bidi marks."""
    text = line if isinstance(line, str) else line.decode()
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
