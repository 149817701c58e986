"""Mends of pynetdicom, for tests that send with it."""

from typing import Any

from pynetdicom.association import Association


def keep_responses(association: Association) -> None:
    """Lets every response reach the call that waits for it.

    pynetdicom 3.0 pauses the association's thread before a request, but that thread may then still
    take one message, which it drops because it expects requests only.
    """

    serve_request = association._serve_request

    def put_back(message: Any, context_id: int) -> None:
        if message.is_valid_request:
            serve_request(message, context_id)
        else:
            association.dimse.msg_queue.put((context_id, message))

    association._serve_request = put_back  # type: ignore[method-assign]
