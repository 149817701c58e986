"""A report: drafted first, then finished; the bytes are stored once and sent unchanged.

A draft says everything that the report will say, but has no identity. Its digest tells whether a
report would say anything new. Finishing gives it a time, a number, the reports that it replaces,
and UIDs that are derived from all of these: other bytes always have another UID.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cached_property
from io import BytesIO

from pydicom import DataElement, Dataset, dcmread
from pydicom.valuerep import DT

from lumbar.elements import date, text, time
from lumbar.reports.report_uids import report_uid, tracking_uid
from lumbar.spine.anatomy import ALL_FINDINGS

DRAFT_UID = "2.25.0"  # of every draft
MINUTE = timedelta(minutes=1)
DRAFT_TIME = datetime(1970, 1, 1)  # noqa: DTZ001 - of every draft, and of no place


@dataclass(frozen=True)
class Report:
    """A DICOM Part-10 file and the identifiers in it."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Of ``content``, in lower-case hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Predecessor:
    """An earlier report of the study that a new one replaces."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Draft:
    """What a report says, as a Part-10 file under ``DRAFT_UID`` and ``DRAFT_TIME``."""

    output: str  # the kind of output, for instance "sr"
    content: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Digest of what the report says, in lower-case hex."""
        return hashlib.sha256(self.content).hexdigest()

    def finish(
        self,
        created: datetime,
        zone: tzinfo | None = None,
        *,
        number: int = 1,
        predecessors: Sequence[Predecessor] = (),
    ) -> Report:
        """The report with its UIDs; equal arguments give equal bytes.

        Args:
            created: With a time zone, whichever. It is written in the offset that the images state
                or, if they state none, that the site had at the time of the study, because a file
                has one offset for all of its times (PS3.3 C.12.1.1.8).
            zone: The site's; None: the machine's.
            number: Instance Number; that of a later report is higher.
            predecessors: The reports that this one replaces.
        """
        document = dcmread(BytesIO(self.content))
        created = created.astimezone(_offset(document, created, zone))
        replaced = [predecessor.sop_instance_uid for predecessor in predecessors]
        uid = report_uid(
            document.StudyInstanceUID, self.output, self.sha256, created, number, replaced
        )
        drafted = {tracking_uid(DRAFT_UID, key): tracking_uid(uid, key) for key in ALL_FINDINGS}
        _replace_uids(document, drafted | {DRAFT_UID: uid})
        _stamp(document, created)
        document.InstanceNumber = number
        if predecessors:
            document.PredecessorDocumentsSequence = [_references(document, predecessors)]
        file = BytesIO()
        document.save_as(file, enforce_file_format=True)
        return Report(document.SOPClassUID, uid, document.SeriesInstanceUID, file.getvalue())


def _offset(document: Dataset, created: datetime, zone: tzinfo | None) -> timezone:
    """The offset of all times in the document."""
    if stated := text(document, "TimezoneOffsetFromUTC"):
        minutes = 60 * int(stated[:3]) + int(stated[0] + stated[3:])
        return timezone(timedelta(minutes=minutes))
    if day := date(document, "StudyDate"):
        moment = f"{day}{time(document, 'StudyTime')[:4]:0<4}"
        examined = datetime.strptime(moment, "%Y%m%d%H%M")  # noqa: DTZ007 - the machine's zone
        offset = (examined.replace(tzinfo=zone) if zone else examined.astimezone()).utcoffset()
        if offset is not None and offset % MINUTE == timedelta():  # not so in the 19th century
            return timezone(offset)
    offset = created.astimezone(zone).utcoffset()
    return timezone(offset or timedelta())


def _replace_uids(document: Dataset, new: Mapping[str, str]) -> None:
    def replace(_: Dataset, element: DataElement) -> None:
        if element.VR == "UI" and element.value in new:
            element.value = new[element.value]

    document.walk(replace)
    document.file_meta.walk(replace)


def _stamp(document: Dataset, created: datetime) -> None:
    document.ContentDate = document.InstanceCreationDate = created.date()
    document.ContentTime = document.InstanceCreationTime = created.time()
    document.TimezoneOffsetFromUTC = created.strftime("%z")[:5]
    for equipment in document.ContributingEquipmentSequence:
        equipment.ContributionDateTime = DT(created.replace(tzinfo=None))


def _references(document: Dataset, predecessors: Sequence[Predecessor]) -> Dataset:
    """PS3.3 table C.17-3, Hierarchical SOP Instance Reference Macro."""
    by_series: dict[str, Dataset] = {}
    for predecessor in predecessors:
        series = by_series.setdefault(predecessor.series_instance_uid, Dataset())
        series.SeriesInstanceUID = predecessor.series_instance_uid
        reference = Dataset()
        reference.ReferencedSOPClassUID = predecessor.sop_class_uid
        reference.ReferencedSOPInstanceUID = predecessor.sop_instance_uid
        series.ReferencedSOPSequence = [*series.get("ReferencedSOPSequence", []), reference]
    study = Dataset()
    study.StudyInstanceUID = document.StudyInstanceUID
    study.ReferencedSeriesSequence = list(by_series.values())
    return study
