"""Registers arrived files: each gets its place in the store and its rows, then leaves ``arrived``.

In this order, each step durable before the next: the file is linked into ``instances``, the rows
are committed, the arrived file is removed. Whenever the process dies, the arrived file is still
there or everything is done; doing it again changes nothing.

What cannot be registered (its header cannot be read, or the database refuses its values) goes to
``quarantined``, is logged and audited, and counted by `lumbar status`: it was acknowledged. What
only failed this time, because of the disk or the sandbox, is tried again (``db.registrar``).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import DataError, ProgrammingError

from db import audit
from db.comparisons import Comparisons, copies_in_use
from db.database import Conflict, Database, DatabaseUnavailable
from db.instance_rows import write_rows
from db.models import Instance
from db.stored_instances import (
    NO_ONE,
    Files,
    IngestResult,
    NotCompared,
    StoredInstance,
    TrustedSources,
)
from lumbar.dicom.headers import raising_not_dicom
from lumbar.dicom.instance_identity import identify
from lumbar.dicom.part10 import read_file_meta, sender_address
from lumbar.elements import text
from lumbar.errors import LumbarError, NotDicom, Transient, Unreadable
from lumbar.log import get_logger
from lumbar.store.arrivals import HeaderDisagrees, require_uid
from lumbar.store.files import (
    INSTANCES,
    QUARANTINED,
    Store,
    file_name,
    raising_store_full,
)
from lumbar.store.folders import fsync_folder
from lumbar.store.shares import ArrivedFile

log = get_logger()

BATCH = 64  # files per transaction
PREPARE_S = 1.0  # after which a batch is written, however few of its files have been read
MAX_CONFLICTS = 2  # of one batch, with other processes
CHUNK = 2**20  # bytes read at a time


Outcome = IngestResult | NotDicom | Transient
LATER = Transient("the files before it took long")


@dataclass(frozen=True)
class _Prepared:
    arrived: ArrivedFile
    stored: StoredInstance


@dataclass(frozen=True)
class Registration:
    """Registers files in one site's store and database."""

    database: Database
    store: Store
    trusted: TrustedSources = NO_ONE

    def register(self, files: Sequence[ArrivedFile]) -> list[Outcome]:
        """Registers files that have arrived; the outcomes are in their order.

        NotDicom is the outcome of a file that went to ``quarantined``, with the reason; Transient
        that of one which remains, to be registered later.

        Raises:
            Transient: the disk or the database failed; all files remain.
        """
        self.store.require_mounted()
        outcomes: dict[Path, Outcome] = {}
        with raising_store_full(self.store.root):
            prepared, began = [], monotonic()
            for file in files:
                try:
                    prepared.append(self._prepare(file))
                except Exception as error:  # noqa: BLE001 - one file must not stop the others
                    outcomes[file.path] = self._failed(file, error)
                if monotonic() - began > PREPARE_S:
                    break  # the others need not wait for those that take long
            self._place(prepared)
            prepared, comparisons = self._compare(prepared, outcomes)
            outcomes |= self._write(prepared, comparisons)
        return [outcomes.get(file.path, LATER) for file in files]

    def quarantine(self, file: ArrivedFile, why: Exception) -> NotDicom:
        """Keeps a file that cannot be registered, apart from the images. Returns the reason.

        Raises:
            Transient: the disk or the database has failed instead.
        """
        reason = NotDicom(str(why) if isinstance(why, LumbarError) else f"a {type(why).__name__}")
        with raising_store_full(self.store.root):
            # The link that it had got before it was refused would outlive a deletion of the study,
            # and be adopted at every start (``db.reconcile``).
            with suppress(NotDicom, OSError):  # it cannot be read, so it has never been linked
                self._remove_unnamed(file_name(INSTANCES, _read(file.path).digest))
            folder = self.store.path(QUARANTINED)
            self.store.make_folder(folder)
            with self.database.transaction() as session:
                audit.note(
                    session,
                    "instance.unregistrable",
                    audit.on_this_host("registrar"),
                    why=str(reason),
                    file=f"{QUARANTINED}/{file.path.name}",
                )
            file.path.rename(folder / file.path.name)
            fsync_folder(folder)
        log.error("instance.unregistrable", why=str(reason))
        return reason

    def _remove_unnamed(self, place: str) -> None:
        """Removes a stored instance that no row names."""
        with self.database.reading() as session:
            named = session.scalar(select(Instance.id).where(Instance.file == place).limit(1))
        if named is None:
            self.store.remove(place)

    def _prepare(self, file: ArrivedFile) -> _Prepared:
        """Reads what its rows will hold.

        Raises:
            NotDicom: the header cannot be read; Unreadable, this time.
            HeaderDisagrees: it is another instance than the one that was acknowledged.
        """
        head = _read(file.path)
        identity = identify(file.path)
        require_uid(identity.sop_instance_uid, "SOPInstanceUID")
        require_uid(identity.series_instance_uid, "SeriesInstanceUID")
        require_uid(identity.study_instance_uid, "StudyInstanceUID")
        found = (identity.sop_class_uid, identity.sop_instance_uid)
        if found != head.announced or identity.study_instance_uid != file.study_instance_uid:
            raise HeaderDisagrees("the dataset's UIDs are not those that were acknowledged")
        stored = StoredInstance(
            identity=identity,
            transfer_syntax_uid=head.syntax,
            digest=head.digest,
            file=file_name(INSTANCES, head.digest),
            source=head.source,
            address=head.address,
            age_s=file.age_s(),
        )
        return _Prepared(file, stored)

    def _failed(self, file: ArrivedFile, error: Exception) -> Outcome:
        """What becomes of a file that could not be registered.

        Raises:
            DatabaseUnavailable: it is not the file's fault.
        """
        match error:
            case DatabaseUnavailable():
                raise error
            case Unreadable() | OSError() | MemoryError():
                reason = str(error) if isinstance(error, Unreadable) else type(error).__name__
                return Transient(f"a file cannot be read: {reason}")
            case NotDicom() | DataError() | ValueError():
                return self.quarantine(file, error)
            case ProgrammingError():
                raise DatabaseUnavailable(
                    "the database's schema or permissions are not those needed"
                ) from error
            case _:
                return Transient(f"a file cannot be registered ({type(error).__name__})")

    def _place(self, prepared: Sequence[_Prepared]) -> None:
        """Links the files into ``instances``; durable on return, also what was linked before."""
        for each in prepared:
            place = self.store.path(each.stored.file)
            self.store.make_folder(place.parent)
            if not place.exists():
                self._link(each)
            elif not _intact(place, each.stored.digest):
                log.error("instance.restored", file=each.stored.file)
                self._link(each)
        self.store.sync({each.stored.file for each in prepared})

    def _link(self, each: _Prepared) -> str:
        return self.store.link(each.arrived.path, INSTANCES, each.stored.digest)

    def _compare(
        self, prepared: Sequence[_Prepared], outcomes: dict[Path, Outcome]
    ) -> tuple[list[_Prepared], Comparisons]:
        """Compares images with the copies in use, which takes some milliseconds each, or seconds.

        Also returns what can be written now: the others need not wait for those that take long.
        Adds the outcomes of those that cannot be compared.
        """
        now, comparisons, began = list[_Prepared](), Comparisons(self.store), monotonic()
        images = [each.stored for each in prepared if each.stored.is_image]
        copies = copies_in_use(self.database, images)
        for each in prepared:
            stored = each.stored
            copy = copies.get(stored.identity.sop_instance_uid)
            if copy is None or copy[0] == stored.digest or not stored.is_image:
                now.append(each)
            elif monotonic() - began < PREPARE_S:
                try:
                    comparisons.add(copy, (stored.digest, stored.file))
                    now.append(each)
                except Exception as error:  # noqa: BLE001 - one file must not stop the others
                    outcomes[each.arrived.path] = self._failed(each.arrived, error)
        return now, comparisons

    def _write(
        self, prepared: Sequence[_Prepared], comparisons: Comparisons
    ) -> dict[Path, Outcome]:
        """Writes the rows of all; of each alone, if that fails, to find out which cannot be.

        Raises:
            DatabaseUnavailable: it is no file's fault.
        """
        try:
            return self._write_again(prepared, comparisons)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a value that the database refuses, or our fault
            if len(prepared) == 1:
                (file,) = (each.arrived for each in prepared)
                return {file.path: self._failed(file, error)}
            outcomes: dict[Path, Outcome] = {}
            for each in prepared:
                outcomes |= self._write([each], comparisons)
            return outcomes

    def _write_again(
        self, prepared: Sequence[_Prepared], comparisons: Comparisons
    ) -> dict[Path, Outcome]:
        """Writes the rows of all, again if another process has interfered.

        Raises:
            Conflict: more often than can be by chance.
        """
        conflicts = 0
        while True:
            try:
                return self._write_all(prepared, comparisons)
            except NotCompared as needed:  # at most once for each pair
                comparisons.add(needed.copy, needed.new)
            except Conflict:  # another process registered the same SOP Instance UID just now
                conflicts += 1
                if conflicts > MAX_CONFLICTS:
                    raise

    def _write_all(
        self, prepared: Sequence[_Prepared], comparisons: Comparisons
    ) -> dict[Path, Outcome]:
        by_file = {each.stored.file: each for each in prepared}

        def ensure_file(file: str) -> int:
            if not self.store.path(file).exists():  # removed with its study since ``_place``
                self.store.sync({self._link(by_file[file])})
            return self.store.path(file).stat().st_size

        with self.database.transaction() as session:
            files = Files(ensure_file, comparisons.results)
            results = write_rows(session, [each.stored for each in prepared], files, self.trusted)
        for each, result in zip(prepared, results, strict=True):
            if result is IngestResult.SAME_IMAGE:
                self._remove_unnamed(each.stored.file)
            each.arrived.path.unlink(missing_ok=True)
        return {each.arrived.path: result for each, result in zip(prepared, results, strict=True)}


class _Head(NamedTuple):
    """What an arrived file's meta information says, and the digest of its content."""

    syntax: str
    source: str
    address: str
    announced: tuple[str, str]  # SOP class and instance
    digest: str


def _read(path: Path) -> _Head:
    """Reads a file's meta information, and its content for the digest.

    Raises:
        NotDicom: the file meta information cannot be read.
    """
    with path.open("rb") as stream:
        with raising_not_dicom("the file meta information cannot be read"):
            meta = read_file_meta(stream)
            syntax = text(meta, "TransferSyntaxUID")
            source = text(meta, "SourceApplicationEntityTitle")
            address = sender_address(meta)
            sop_class = text(meta, "MediaStorageSOPClassUID")
            instance = text(meta, "MediaStorageSOPInstanceUID")
        digest = sha256(syntax.encode() + b"\0")
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return _Head(syntax, source, address, (sop_class, instance), digest.hexdigest())


def _intact(path: Path, digest: str) -> bool:
    """Whether a stored file still has the content that its name states."""
    try:
        return _read(path)[-1] == digest
    except (NotDicom, OSError):
        return False
