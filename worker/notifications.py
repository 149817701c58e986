"""What a notification looks like in the broker, and whether a message found there is one.

Nothing in the broker is trusted: a message must be exactly what ``CeleryNotifier`` sends, and says
no more than that work of a kind may be due. Anything else is dropped (``worker/transport.py``).
"""

import json
from base64 import b64decode
from contextlib import suppress
from uuid import UUID

from db.models import JobKind

NAMES = {JobKind.ANALYSE: "analyse_study", JobKind.PREVIEW: "preview"}
LONGEST_BODY = 1000  # characters; ours has about 100


def queue_name(kind: JobKind) -> str:
    """The key in Redis under which the notifications of a kind wait."""
    return f"lumbar.{kind}"


def is_notification(message: object) -> bool:
    """Whether a message, decoded from JSON, is a notification: a task of ours, due, without values.

    Never raises an exception but ``RecursionError`` and ``MemoryError``.
    """
    match message:
        case {
            "headers": {"task": str(task), "eta": None, "expires": None, **headers},
            "properties": {"delivery_tag": str(), "body_encoding": "base64"},
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "body": str(body),
        }:
            known = task in NAMES.values() and "compression" not in headers
            return known and len(body) <= LONGEST_BODY and _without_values(body)
    return False


def message_id(message: object) -> str | None:
    """The UUID of a message that names one; any other text in its place may be anything."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        return str(UUID(message["headers"]["id"]))  # type: ignore[index]
    return None


def _without_values(body: str) -> bool:
    """Whether a message's body has neither arguments nor tasks to run afterwards."""
    with suppress(ValueError):  # it is not Base64, UTF-8 or JSON
        match json.loads(b64decode(body, validate=True)):
            case [[], {} as arguments, {} as embedded]:
                return not arguments and not any(embedded.values())
    return False
