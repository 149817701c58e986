"""Uploads for tests: their bytes, and the user they belong to."""

import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset
from sqlalchemy import select, update

from db import previews
from db.context import SiteContext
from db.models import JobKind, Preview, User, UserRole
from db.preview_results import PreviewResult
from db.types import db_now
from tests.factories.instances import make_slice
from tests.stub_networks import StubNetworks
from worker.tasks import tasks


def shaded_slice(**elements) -> Dataset:
    """A small slice that is not of one grey."""
    return make_slice(**{"PixelData": np.arange(64, dtype=np.uint16).tobytes()} | elements)


def image(**elements) -> bytes:
    """A DICOM file of one small slice."""
    file = BytesIO()
    shaded_slice(**elements).save_as(file, enforce_file_format=True)
    return file.getvalue()


def large_header_image() -> bytes:
    """An image with 32 MiB of empty items in its header: a hundred times as much once parsed."""
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * (4 * 2**20)
    sequence = b"\x43\x00\x01\x10SQ\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    pixels = b"\xe0\x7f\x10\x00OW"
    return image().replace(pixels, sequence + pixels, 1)


def zip_of(files: Mapping[str, bytes]) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files.items():
            archive.writestr(name, file)
    return content.getvalue()


def study_files(study: Path) -> list[bytes]:
    """The images of a phantom study."""
    return [path.read_bytes() for path in sorted(study.rglob("*.dcm"))]


def user_id(site: SiteContext, name: str = "reader") -> int:
    with site.database.transaction() as session:
        user = session.scalar(select(User).where(User.name == name))
        if user is None:
            user = User(name=name, password_hash="none", role=UserRole.ADMIN)
            session.add(user)
            session.flush()
        return user.id


def create_upload(site: SiteContext, files: Sequence[bytes], keep: bool = False) -> str:
    """The name of a preview whose files have all arrived."""
    name = previews.create(site, user_id(site), keep=keep)
    for number, content in enumerate(files, 1):
        (previews.folder(site, name) / previews.UPLOAD / f"{number:04}").write_bytes(content)
    with site.database.transaction() as session:
        previews.mark_uploaded(session, name, files=len(files), size=sum(map(len, files)))
    return name


def read(site: SiteContext, networks=StubNetworks) -> bool:
    """Reads the next upload, as a worker does."""
    return tasks(site, networks)[JobKind.PREVIEW]()


def row(site: SiteContext, name: str) -> Preview | None:
    with site.database.reading() as session:
        return session.scalar(select(Preview).where(Preview.name == name))


def change(site: SiteContext, name: str, **values) -> None:
    with site.database.transaction() as session:
        session.execute(update(Preview).where(Preview.name == name).values(**values))


def expire(site: SiteContext, name: str) -> None:
    """Lets the lease of the upload's worker expire."""
    change(site, name, lease_expires_at=db_now(-1))


def remaining_files(site: SiteContext, name: str) -> list[str]:
    """The files in the preview's folder."""
    folder = previews.folder(site, name)
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def result_of(site: SiteContext, name: str) -> PreviewResult:
    """The result that the worker wrote for it."""
    return PreviewResult.from_json(row(site, name).result)


class RecordingNotifier:
    """Records the kinds of job that it was notified of, and when each is due."""

    def __init__(self) -> None:
        self.notified: dict[object, object] = {}

    def notify(self, kind: object, due: object) -> None:
        self.notified[kind] = due
