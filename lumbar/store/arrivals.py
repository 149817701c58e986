"""Instances on arrival, from any source: checked, made durable, and only then acknowledged.

The file is the record of what was acknowledged; ``db.registration`` writes the rows behind it.
"""

from dataclasses import dataclass

from lumbar.closing import Closing
from lumbar.dicom import headers
from lumbar.dicom.header_scan import BEHIND_UIDS, PIXELS, scan_uids
from lumbar.dicom.part10 import file_head
from lumbar.elements import is_uid
from lumbar.errors import NotDicom
from lumbar.store.files import StagingFile, Store, StoreFull
from lumbar.store.shares import ArrivedFile, Share, arrived_name

IMAGE_CLASSES = headers.IMAGE_CLASSES  # MR images that are read


@dataclass(frozen=True)
class Announcement:
    """What the sender says of an instance before its data set."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    source: str  # calling AE title, or the name of another source; empty: it names none
    address: str = ""  # of its host; empty: not known


class HeaderDisagrees(NotDicom):
    """The data set is not the instance that the sender announced."""


class ArrivingInstance(Closing):
    """An instance being received; a context manager that removes it unless it has arrived.

    Raises:
        NotDicom: an announced UID is not valid (PS3.5 9.1).
        StoreFull: here or in any method, the disk cannot be written.
    """

    def __init__(
        self, store: Store, announced: Announcement, staging: StagingFile | None = None
    ) -> None:
        """``staging``: a new staging file of the store, if the caller has made one before.

        Raises:
            StoreFull: the disk cannot be written; ``staging`` is removed.
        """
        for uid in (announced.sop_class_uid, announced.sop_instance_uid):
            require_uid(uid, "the announced SOP UID")
        self._announced = announced
        self._head = file_head(
            announced.sop_class_uid,
            announced.sop_instance_uid,
            announced.transfer_syntax_uid,
            announced.source,
            announced.address,
        )
        self._staging = staging or StagingFile(store)
        try:
            store.require_mounted()
            self._staging.write(self._head)
        except StoreFull:  # nothing was acknowledged; the sender still has it
            self._staging.close()
            raise

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Appends to the data set, which is in the announced transfer syntax."""
        self._staging.write(content)

    def arrive(self) -> ArrivedFile:
        """Checks the header and makes the file durable; on return it may be acknowledged.

        An MR image's header is checked up to its pixels, because it is read that far; that of
        another object only up to the groups that hold the UIDs.

        Raises:
            NotDicom: the header cannot be read so far, or a UID is not valid.
            HeaderDisagrees: it is another instance than the one announced.
        """
        start = len(self._head)
        uids = scan_uids(
            lambda count, offset: self._staging.read(count, start + offset),
            self._announced.transfer_syntax_uid,
            PIXELS if self._announced.sop_class_uid in IMAGE_CLASSES else BEHIND_UIDS,
        )
        require_uid(uids.sop_instance, "SOPInstanceUID")
        require_uid(uids.series, "SeriesInstanceUID")
        require_uid(uids.study, "StudyInstanceUID")
        announced = (self._announced.sop_class_uid, self._announced.sop_instance_uid)
        if (uids.sop_class, uids.sop_instance) != announced:
            raise HeaderDisagrees("the dataset's SOP class or instance is not the one announced")
        path = self._staging.arrive(arrived_name(uids.study, self._announced.source))
        arrived = ArrivedFile.parse(path)
        assert arrived is not None  # noqa: S101 - it has just been named so
        return arrived

    @property
    def share(self) -> Share:
        """Where it arrives."""
        return self._staging.share

    def close(self) -> None:
        """Removes what has not arrived."""
        self._staging.close()


def require_uid(value: str, name: str) -> None:
    """Requires a UID that is valid, and so safe as a part of a file's name.

    Raises:
        NotDicom: it is missing or not valid.
    """
    if not is_uid(value):
        raise NotDicom(f"{name} is missing or not a UID")
