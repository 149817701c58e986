"""The files of a planned study, and what must be true of it in the end."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from pydicom import Dataset, dcmread

from tests.factories.objects import make_note, other_objects
from tests.faults.sending import make_study
from tests.week.plan import Kind, PlannedStudy

QUALITY = "113001"  # DCM: rejected for quality reasons
SIDE = 64  # pixels


@dataclass
class StudyFiles:
    """What is sent, and the patient and the images that the study has then.

    ``first``: by its scanner; ``again``: later, by ``again_from``. ``patients``: whose it ever was.
    """

    plan: PlannedStudy
    uid: str
    first: list[Path]
    again: list[Path]
    again_from: str
    patients: list[str]
    images: set[str]
    sent: Event = field(default_factory=Event)
    complete: Event = field(default_factory=Event)  # what follows is sent, too
    images_at: float = 0.0  # when the newest image was acknowledged, by the monotonic clock
    last_at: float = 0.0  # when anything was

    def acknowledged(self, again: bool) -> None:
        """Its first part, or what follows, was acknowledged just now."""
        self.last_at = time.monotonic()
        if not again or self.plan.kind in (Kind.LATE, Kind.CORRECTED):
            self.images_at = self.last_at
        self.sent.set()
        if again or not self.has_more:
            self.complete.set()

    @property
    def has_more(self) -> bool:
        """Whether something is sent later."""
        return self.plan.kind not in (Kind.PLAIN, Kind.MIXED)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in {*self.first, *self.again})


def make_files(folder: Path, planned: PlannedStudy) -> StudyFiles:
    """Writes a study's files."""
    folder.mkdir(parents=True)
    sent = make_study(folder, planned.number, slices=planned.slices, side=SIDE)
    files = [instance.file for instance in sent]
    scanner = f"MR{planned.sender}"
    study = StudyFiles(
        planned,
        sent[0].study,
        first=files,
        again=[],
        again_from=scanner,
        patients=[sent[0].patient],
        images={instance.uid for instance in sent},
    )
    match planned.kind:
        case Kind.MIXED:
            objects = other_objects(planned.number)
            study.first = files + [_written(folder, ds) for ds in objects]
        case Kind.RESENT:
            study.again = files
        case Kind.LATE:
            study.first, study.again = files[:-1], files[-1:]
        case Kind.CORRECTED:
            study.again, study.again_from = [_corrected(file) for file in files], "PACS"
            study.patients.append(f"C{planned.number}")
        case Kind.REJECTED:
            rejected = dcmread(files[-1], stop_before_pixels=True)
            study.again = [_written(folder, make_note(QUALITY, [rejected]))]
            study.again_from = "PACS"
            study.images.remove(rejected.SOPInstanceUID)
        case Kind.RETURNED:
            study.again_from = "PACS"  # the report is fetched when it is sent
    return study


def _corrected(file: Path) -> Path:
    ds = dcmread(file)
    number = ds.PatientID.removeprefix("P")
    ds.PatientID, ds.PatientName = f"C{number}", f"Corrected^{number}"
    corrected = file.with_name(f"corrected-{file.name}")
    ds.save_as(corrected, enforce_file_format=True)
    return corrected


def _written(folder: Path, ds: Dataset) -> Path:
    file = folder / f"object-{ds.SOPInstanceUID.rpartition('.')[2]}.dcm"
    ds.save_as(file, enforce_file_format=True)
    return file
