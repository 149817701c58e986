"""What a STOW-RS response says of the one instance that was sent (PS3.18 10.5.3 and annex I)."""

from dataclasses import dataclass

from lumbar.peers.dicom_json import code, items, read_objects, text


@dataclass(frozen=True)
class Stored:
    """It is listed as stored. ``warning``: the WarningReason, or None."""

    warning: int | None


@dataclass(frozen=True)
class Failed:
    """It is listed as failed. ``reason``: the FailureReason, or None."""

    reason: int | None


def read_store_response(body: bytes, sop_instance_uid: str) -> Stored | Failed | None:
    """What the body says of the instance; None if nothing.

    An item without a UID counts where it says failed, as only one instance was sent, and not where
    it says stored.
    """
    stored: Stored | None = None
    for response in read_objects(body) or []:
        for item in items(response, "FailedSOPSequence"):
            if text(item, "ReferencedSOPInstanceUID") in (sop_instance_uid, ""):
                return Failed(code(item, "FailureReason"))
        for item in items(response, "ReferencedSOPSequence"):
            if text(item, "ReferencedSOPInstanceUID") == sop_instance_uid:
                stored = Stored(code(item, "WarningReason"))
    return stored
