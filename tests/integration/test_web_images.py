"""A study's slices as the page gets them: in the order of the body, and their values as they are stored."""

import numpy as np
import pytest

from db import studies
from db.ingest import ingest
from db.models import UserRole
from tests.integration.conftest import ROOT, arrival, make_slice
from tests.integration.site_with_studies import open_site
from tests.integration.web_client import WebClient, browser_client
from web.app import create_app

STUDY = f"/studies/{ROOT}.1"
VALUES = np.random.default_rng(1).integers(0, 4000, (8, 6), np.uint16)
SLICE = {"Columns": 6, "PixelData": VALUES.tobytes()}


@pytest.fixture
def site(tmp_path):
    site = open_site(tmp_path)
    yield site
    site.database.close()


@pytest.fixture
def viewer(site) -> WebClient:
    return browser_client(create_app(site), UserRole.VIEWER)


def take(site, number=1, series=1, **elements):
    ingest(
        site.database,
        site.store,
        arrival(make_slice(number=number, series=series, **SLICE, **elements)),
    )


def frame(number, series=1):
    return f"{STUDY}/instances/{ROOT}.1.{series}.{number}/frames/0"


def values_of(answer):
    """The values as a page's script makes them of the answer."""
    rows, columns, low, high = (
        float(answer.headers[f"X-{name}"]) for name in ("Rows", "Columns", "Low", "High")
    )
    stored = np.frombuffer(answer.content, "<u2").reshape(int(rows), int(columns))
    return low + stored * ((high - low) / 65535)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1000)])
def test_a_slice_comes_with_the_values_it_was_stored_with(site, viewer, slope, intercept):
    take(site, RescaleSlope=slope, RescaleIntercept=intercept)
    answer = viewer.get(frame(1))
    assert answer.headers["content-type"] == "application/octet-stream"
    given = values_of(answer)
    assert np.corrcoef(given.ravel(), VALUES.ravel())[0, 1] > 0.999999
    assert len(np.unique(given)) == len(np.unique(VALUES))
    dark, bright = float(answer.headers["X-Dark"]), float(answer.headers["X-Bright"])
    assert given.min() <= dark < bright <= given.max()


def test_a_slice_of_one_value_alone_can_be_shown(site, viewer):
    ingest(site.database, site.store, arrival(make_slice()))
    answer = viewer.get(frame(1))
    assert set(values_of(answer).ravel()) == {1.0}
    assert float(answer.headers["X-Dark"]) < float(answer.headers["X-Bright"])


def test_series_and_slices_are_listed_along_the_body_whatever_their_numbers_and_arrival(
    site, viewer
):
    for place in (3, 1, 2):
        take(site, place, series=2, plane="axial", InstanceNumber=10 - place)
        take(site, place, series=1, ImagePositionPatient=[-place * 4.0, 0, 0])
    told = viewer.get(f"{STUDY}/series").json()
    assert [(one["number"], one["plane"]) for one in told] == [(1, "sagittal"), (2, "axial")]
    numbers = [
        [int(one["instance"].rpartition(".")[2]) for one in series["slices"]] for series in told
    ]
    assert numbers == [[3, 2, 1], [3, 2, 1]]  # from the patient's right; from the head
    assert told[0]["slices"][0] | {"instance": 0} == {
        "instance": 0, "frame": 0, "number": 3, "rows": 8, "columns": 6, "spacing": [30, 30],
    }  # fmt: skip


def test_what_was_set_aside_is_not_shown(site, viewer):
    take(site)
    take(site, number=2, PatientID="P2")
    assert len(viewer.get(f"{STUDY}/series").json()[0]["slices"]) == 1
    assert viewer.get(frame(2)).status_code == 404


@pytest.mark.parametrize("how", ["removed", "lost", "damaged"])
def test_an_image_that_cannot_be_shown_is_left_out_and_the_others_are_there(site, viewer, how):
    for number in (1, 2):
        take(site, number)
    with site.database.transaction() as session:
        first = studies.instances_in_use(session, 1)[0]
        if how == "removed":
            first.removed_at = first.received_at
    file = site.store.path(first.file)
    if how == "damaged":
        file.write_bytes(b"no DICOM")
    else:
        file.unlink()
    (series,) = viewer.get(f"{STUDY}/series").json()
    assert [one["number"] for one in series["slices"]] == [2]
    answer = viewer.get(frame(1))
    assert answer.status_code == (422 if how == "damaged" else 404)
    assert 'role="alert"' in answer.text
    assert viewer.get(frame(2)).status_code == 200
