"""Uploads for tests: their bytes, and a user who made them."""

import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from sqlalchemy import select, update

from db import previews
from db.context import SiteContext
from db.models import JobKind, Preview, User, UserRole
from db.types import db_now
from tests.factories.instances import make_slice
from tests.stub_program import StubNetworks
from worker.tasks import tasks


def image(**elements) -> bytes:
    """A DICOM file of one small slice."""
    held = BytesIO()
    make_slice(**elements).save_as(held, enforce_file_format=True)
    return held.getvalue()


def heavy_image() -> bytes:
    """Its header is 32 MiB of empty items: a hundred times as much once it is parsed."""
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * (4 * 2**20)
    sequence = b"\x43\x00\x01\x10SQ\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    pixels = b"\xe0\x7f\x10\x00OW"
    return image().replace(pixels, sequence + pixels, 1)


def zipped(files: Mapping[str, bytes]) -> bytes:
    held = BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()


def files_of(study: Path) -> list[bytes]:
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


def uploaded(site: SiteContext, files: Sequence[bytes], keep: bool = False) -> str:
    """The name of a preview whose files have all arrived."""
    name = previews.create(site, user_id(site), keep=keep)
    for number, content in enumerate(files, 1):
        (previews.folder(site, name) / previews.UPLOAD / f"{number:04}").write_bytes(content)
    with site.database.transaction() as session:
        previews.uploaded(session, name, files=len(files), size=sum(map(len, files)))
    return name


def read(site: SiteContext, networks=StubNetworks) -> bool:
    """As a worker does it."""
    return tasks(site, networks)[JobKind.PREVIEW]()


def row(site: SiteContext, name: str) -> Preview | None:
    with site.database.reading() as session:
        return session.scalar(select(Preview).where(Preview.name == name))


def change(site: SiteContext, name: str, **values) -> None:
    with site.database.transaction() as session:
        session.execute(update(Preview).where(Preview.name == name).values(**values))


def expire(site: SiteContext, name: str) -> None:
    """Nobody has heard of its worker."""
    change(site, name, lease_expires_at=db_now(-1))


def files_left(site: SiteContext, name: str) -> list[str]:
    """What lies in the preview's folder."""
    folder = previews.folder(site, name)
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
