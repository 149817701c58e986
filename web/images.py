"""A study's slices for the page: which there are, in the order of the body, and their pixels as they are stored."""

from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Response

from db import studies
from db.context import SiteContext
from db.models import Instance
from lumbar.dicom.headers import read_header, slice_headers
from lumbar.dicom.pixels import read_slice
from lumbar.errors import NotDicom, NotFound
from lumbar.spine.slices import SliceHeader
from web.auth import TheAuditTrail, TheSite, Viewer

router = APIRouter(include_in_schema=False)

KEEP_S = 3600  # the browser may keep a slice: it never changes, and signing out clears it
DARK, BRIGHT = 1.0, 99.5  # percentiles that the first window spans


@router.get("/studies/{uid}/series")
def series(site: TheSite, trail: TheAuditTrail, actor: Viewer, uid: str) -> list[dict[str, Any]]:
    """Every series with its slices, ordered along the body; what cannot be read is left out."""
    shown: dict[str, dict[str, Any]] = {}
    slices: dict[str, list[tuple[float, SliceHeader]]] = {}
    for instance in _instances(site, trail, actor.name, uid):
        of = instance.series
        for header in _headers(site.store.path(instance.file)):
            shown.setdefault(
                of.series_instance_uid,
                {"number": of.series_number, "description": of.description, "plane": header.plane},
            )
            slices.setdefault(of.series_instance_uid, []).append((_along(header), header))
    return [
        told
        | {
            "uid": name,
            "slices": [
                {
                    "instance": h.sop_instance_uid,
                    "frame": h.frame or 0,
                    "number": h.instance_number,
                    "rows": h.rows,
                    "columns": h.columns,
                    "spacing": [h.spacing[0], h.spacing[1]],
                }
                for _, h in sorted(slices[name], key=lambda pair: pair[0])
            ],
        }
        for name, told in sorted(shown.items(), key=lambda pair: (pair[1]["number"] or 0, pair[0]))
    ]


@router.get("/studies/{uid}/instances/{instance}/frames/{frame}")
def pixels(
    site: TheSite, trail: TheAuditTrail, actor: Viewer, uid: str, instance: str, frame: int
) -> Response:
    """A slice as unsigned 16-bit little-endian values, row by row; ``frame`` is 0 in a single-frame instance.

    Headers: ``X-Rows``, ``X-Columns``; ``X-Low`` and ``X-High``, what 0 and 65535 stand for; ``X-Dark`` and
    ``X-Bright``, the window to begin with.
    """
    instances = _instances(site, trail, actor.name, uid)
    held = next((i for i in instances if i.sop_instance_uid == instance), None)
    if held is None:
        raise NotFound("the study has no such image, or it was removed")
    path = site.store.path(held.file)
    if not path.exists():
        raise NotFound("the image's file is not there any more")
    if (frame or None) not in {header.frame for header in slice_headers(read_header(path))}:
        raise NotFound("the image has no such frame")
    image = read_slice(path, frame or None)
    low, high = float(image.min()), float(image.max())
    scaled = np.rint((image - low) * (65535 / (high - low))) if high > low else np.zeros_like(image)
    dark, bright = (float(v) for v in np.percentile(image, (DARK, BRIGHT)))
    return Response(
        scaled.astype("<u2").tobytes(),
        media_type="application/octet-stream",
        headers={
            "X-Rows": str(image.shape[0]),
            "X-Columns": str(image.shape[1]),
            "X-Low": repr(low),
            "X-High": repr(high),
            "X-Dark": repr(dark),
            "X-Bright": repr(max(bright, dark + 1e-6)),
            "Cache-Control": f"private, max-age={KEEP_S}",
        },
    )


def _instances(site: SiteContext, trail: TheAuditTrail, actor: str, uid: str) -> list[Instance]:
    with site.database.reading() as session:
        study = studies.find(session, uid)
        held = [i for i in studies.instances_in_use(session, study.id) if i.removed_at is None]
    trail.record_view("images.seen", actor, study.id)
    return held


def _headers(path: Path) -> list[SliceHeader]:
    try:
        return slice_headers(read_header(path))
    except (NotDicom, OSError):
        return []


def _along(header: SliceHeader) -> float:
    """Where a slice lies: sagittal ones from the right, axial ones from the top."""
    axis = int(np.argmax(np.abs(header.normal)))
    place = float(header.centre[axis])
    return -place if axis == 2 else place
