"""A study's slices for the page: listed in anatomical order, with their stored pixels.

Pixels are read by few threads of their own, as a slice of 2048 × 2048 takes 100 MiB meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray

from db import studies
from db.audit import Participant
from db.context import SiteContext
from db.models import Instance
from lumbar.dicom.headers import read_header, slice_headers
from lumbar.dicom.pixels import read_slice
from lumbar.errors import NotDicom, NotFound
from lumbar.spine.slices import SliceHeader
from web.auth import TheAuditTrail, TheSite, Viewer
from web.places import FramePlace, within_time

router = APIRouter(include_in_schema=False)

CACHE_S = 3600  # the browser may cache a slice: it never changes, and signing out clears the cache
PIECE = 64 * 2**10  # bytes, in which a slice is sent
DARK, BRIGHT = 1.0, 99.5  # percentiles that the initial window spans

_threads = ThreadPoolExecutor(2, "frames")  # of which one waits while the decoder is busy


@router.get("/studies/{uid}/series")
def series(site: TheSite, trail: TheAuditTrail, actor: Viewer, uid: str) -> list[dict[str, Any]]:
    """Every series with its slices in anatomical order; unreadable files are left out."""
    described: dict[str, dict[str, Any]] = {}
    headers: dict[str, list[SliceHeader]] = {}
    for instance in _instances(site, trail, actor.participant, uid):
        row = instance.series
        for header in _headers(site.store.path(instance.file)):
            described.setdefault(
                row.series_instance_uid,
                {
                    "uid": row.series_instance_uid,
                    "number": row.series_number,
                    "description": row.description,
                    "plane": header.plane,
                },
            )
            headers.setdefault(row.series_instance_uid, []).append(header)
    ordered = sorted(described.values(), key=lambda entry: (entry["number"] or 0, entry["uid"]))
    return [
        entry | {"slices": list(map(_slice, sorted(headers[entry["uid"]], key=_position)))}
        for entry in ordered
    ]


def _slice(header: SliceHeader) -> dict[str, Any]:
    return {
        "instance": header.sop_instance_uid,
        "frame": header.frame or 0,
        "number": header.instance_number,
        "rows": header.rows,
        "columns": header.columns,
        "spacing": list(header.spacing),
    }


@router.get("/studies/{uid}/instances/{instance}/frames/{frame}")
async def pixels(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    place: FramePlace,
    uid: str,
    instance: str,
    frame: int,
) -> Response:
    """A slice as unsigned 16-bit little-endian values, row by row.

    ``frame`` is 1-based, and 0 in a single-frame instance. Headers: ``X-Rows``, ``X-Columns``;
    ``X-Low`` and ``X-High``, the pixel values that 0 and 65535 stand for; ``X-Dark`` and
    ``X-Bright``, the limits of the initial window. Padding is 0, and counts for none of them.

    Raises:
        NotFound: the study has no such instance or frame, or its file was removed.
        TooBusy: too many slices are being read.
    """
    path = await run_in_threadpool(_file, site, trail, actor.participant, uid, instance)
    return await within_time(asyncio.wrap_future(_threads.submit(_read, path, frame)))


def _file(
    site: SiteContext, trail: TheAuditTrail, actor: Participant, uid: str, instance: str
) -> Path:
    instances = _instances(site, trail, actor, uid)
    row = next((i for i in instances if i.sop_instance_uid == instance), None)
    if row is None:
        raise NotFound("the study has no such image, or it was removed")
    path = site.store.path(row.file)
    if not path.exists():
        raise NotFound("the image's file no longer exists")
    return path


def _read(path: Path, frame: int) -> Response:
    if (frame or None) not in {header.frame for header in slice_headers(read_header(path))}:
        raise NotFound("the image has no such frame")
    return _pixel_response(read_slice(path, frame or None))


def _pixel_response(image: NDArray[np.float32]) -> Response:
    padding = np.isnan(image)
    shown = image[~padding] if not padding.all() else np.zeros(1, np.float32)
    low, high = float(shown.min()), float(shown.max())
    scaled = np.rint((image - low) * (65535 / (high - low))) if high > low else np.zeros_like(image)
    scaled[padding] = 0
    dark, bright = (float(value) for value in np.percentile(shown, (DARK, BRIGHT)))
    stored = scaled.astype("<u2")
    return StreamingResponse(
        _pieces(stored.reshape(-1).view(np.uint8).data),
        media_type="application/octet-stream",
        headers={
            "Content-Length": str(stored.nbytes),
            "X-Rows": str(image.shape[0]),
            "X-Columns": str(image.shape[1]),
            "X-Low": repr(low),
            "X-High": repr(high),
            "X-Dark": repr(dark),
            "X-Bright": repr(max(bright, dark + 1e-6)),
            "Cache-Control": f"private, max-age={CACHE_S}",
        },
    )


async def _pieces(content: memoryview) -> AsyncIterator[memoryview]:
    """Each is sent before the next: what is sent at once is copied at once."""
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


def _instances(
    site: SiteContext, trail: TheAuditTrail, actor: Participant, uid: str
) -> list[Instance]:
    """The study's instances whose files are not removed; the view is recorded."""
    with site.database.reading() as session:
        study = studies.find(session, uid)
        instances = [i for i in studies.images_in_use(session, study.id) if i.removed_at is None]
    trail.record_view("images.seen", actor, study.id)
    return instances


def _headers(path: Path) -> list[SliceHeader]:
    try:
        return slice_headers(read_header(path))
    except (NotDicom, OSError):
        return []


def _position(header: SliceHeader) -> float:
    """A slice's position in its stack, mm (LPS): sagittal from the right, axial from the head."""
    axis = int(np.argmax(np.abs(header.normal)))
    position = float(header.centre[axis])
    return -position if axis == 2 else position
