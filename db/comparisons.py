"""Comparisons of images with the copies in use, made before the transaction that needs them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from db.database import Database
from db.models import Instance, StatedAttributes
from db.stated_attributes import attributes_of
from db.stored_instances import StoredInstance
from lumbar.dicom.same_image import Comparison, compare
from lumbar.store.files import Store
from lumbar.study_attributes import StudyAttributes

Content = tuple[str, str]  # digest, and file in the store


@dataclass
class Comparisons:
    """What copies of images were found to be, by the digests of the copy in use and the new one."""

    store: Store
    results: dict[tuple[str, str], Comparison] = field(default_factory=dict)

    def add(self, copy: Content, new: Content) -> None:
        """Compares two files; one that is missing in the store is not readable.

        Raises:
            Unreadable: the disk cannot be read.
        """
        first, second = self.store.path(copy[1]), self.store.path(new[1])
        if first.exists():
            comparison = compare(first, second)
        else:
            comparison = Comparison(False, compare(second, second).b_readable, same=False)
        self.results[copy[0], new[0]] = comparison


def copies_in_use(database: Database, images: Sequence[StoredInstance]) -> dict[str, Content]:
    """The copies with which these images will be compared, by SOP Instance UID.

    An image that states another patient is not compared: whatever it shows, it is not used.
    """
    by_uid = {stored.identity.sop_instance_uid: stored for stored in images}
    with database.reading() as session:
        rows = session.execute(
            select(Instance, StatedAttributes)
            .outerjoin(StatedAttributes, StatedAttributes.id == Instance.attributes_id)
            .where(
                Instance.sop_instance_uid.in_(by_uid),
                Instance.quarantined.is_(None),
                Instance.removed_at.is_(None),
                Instance.is_image,
            )
        ).unique()
        return {
            row.sop_instance_uid: (row.sha256, row.file)
            for row, stated in rows
            if _are_compared(
                by_uid[row.sop_instance_uid], attributes_of(stated) if stated else None
            )
        }


def _are_compared(new: StoredInstance, copy: StudyAttributes | None) -> bool:
    return copy is None or not new.attributes.corrects(copy)
