"""The process in which a ``Peer``'s operations run: ``python -m lumbar.peers.child``.

What a peer sends is read here, within limits of time and memory. The destination, with its
credentials, comes with each request, never in the process's arguments.
"""

import logging
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from pathlib import Path
from time import monotonic
from traceback import extract_tb
from typing import Any

from lumbar import errors
from lumbar.errors import LumbarError
from lumbar.peers import asking, outcomes
from lumbar.peers.deadline import Deadline
from lumbar.peers.destinations import Destination, DicomwebDestination, DimseDestination, Probe
from lumbar.peers.outcomes import InstanceReference, Sent, Unintelligible, Unreachable
from lumbar.sandbox import serve
from lumbar.untrusted_pipe import Response

CPU_SECONDS = 60  # per operation
MEMORY = 256 * 2**20  # bytes, per operation
_GRACE_S = 5  # after which an operation ends that its parent could not end, as it was stopped


@dataclass(frozen=True)
class _Operations:
    """What can be done with a destination."""

    send: Callable[..., Sent]
    test: Callable[[], None]
    search: asking.Search


def respond(request: dict[str, Any]) -> Response:
    """What the operation returns, or the error that it raises."""
    until = request["until"]
    signal.alarm(ceil(max(until - monotonic(), 0)) + _GRACE_S)
    destination = _destination(request)
    deadline = Deadline(destination.name, request["timeout_s"], request["limit_s"], until=until)
    try:
        operations = _operations(destination, deadline)
        result = _perform(operations, request["operation"], request["arguments"])
    except LumbarError as error:
        return _failed(_public(error), str(error))
    except MemoryError:
        return _failed(Unreachable, f"{destination.name} sent more than can be read; see its log")
    except Exception as fault:  # noqa: BLE001 - whatever a peer sends, it is an outcome
        message = f"{destination.name} sent what cannot be read; see its log"
        return _failed(Unintelligible, message, _where(fault))
    return {"result": result}, b""


def _destination(request: dict[str, Any]) -> Destination:
    fields = request["destination"] | {"probe": Probe(request["destination"]["probe"])}
    if request["kind"] == DimseDestination.__name__:
        return DimseDestination(**fields)
    return DicomwebDestination(**fields)


def _perform(operations: _Operations, name: str, arguments: dict[str, Any]) -> Any:
    """The operation's result, as JSON has it."""
    match name:
        case "send":
            path = Path(arguments["file"])
            return asdict(operations.send(path, not_after=arguments["not_after"]))
        case "holds":
            return asking.holds(operations.search, InstanceReference(**arguments["reference"]))
        case "our_reports":
            reports = asking.our_reports(operations.search, arguments["study_instance_uid"])
            return None if reports is None else list(map(asdict, reports))
        case "answers_queries":
            return asking.answers_queries(operations.search)
        case _:
            return operations.test()


def _operations(destination: Destination, deadline: Deadline) -> _Operations:
    """The destination's, by its protocol."""
    if isinstance(destination, DimseDestination):
        from lumbar.peers import dimse, find

        return _Operations(
            partial(dimse.send, destination, deadline),
            partial(dimse.echo, destination, deadline),
            find.search_of(destination, deadline),
        )
    from lumbar.peers import qido, stow

    return _Operations(
        partial(stow.send, destination, deadline),
        partial(qido.test, destination, deadline),
        qido.search_of(destination, deadline),
    )


def _failed(kind: type[LumbarError], message: str, fault: str | None = None) -> Response:
    return {"error": kind.__name__, "message": message, "fault": fault}, b""


def _public(error: LumbarError) -> type[LumbarError]:
    """The error's class, or its base that is not private to a module of this package."""
    modules = (outcomes.__name__, errors.__name__)
    return next(kind for kind in type(error).__mro__ if kind.__module__ in modules)


def _where(fault: Exception) -> str:
    """An exception's type and where it was raised; its text may quote a patient's values."""
    frames = extract_tb(fault.__traceback__)
    return f"{type(fault).__name__} at " + " < ".join(
        f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames)
    )


if __name__ == "__main__":
    logging.disable()
    serve(respond, seconds=CPU_SECONDS, memory=MEMORY, network=True)
