"""A study's slices as the page gets them: in anatomical order, with their stored pixel values."""

import numpy as np
import pytest

from db import studies
from db.ingest import ingest
from db.models import UserRole
from tests.factories.instances import ROOT, arrival, make_slice
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


def ingest_slice(site, number=1, series=1, **elements):
    ingest(
        site.database,
        site.store,
        arrival(make_slice(number=number, series=series, **SLICE, **elements)),
    )


def frame(number, series=1):
    return f"{STUDY}/instances/{ROOT}.1.{series}.{number}/frames/0"


def values_of(response):
    """The pixel values that the page's script computes from a response."""
    rows, columns, low, high = (
        float(response.headers[f"X-{name}"]) for name in ("Rows", "Columns", "Low", "High")
    )
    stored = np.frombuffer(response.content, "<u2").reshape(int(rows), int(columns))
    return low + stored * ((high - low) / 65535)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1000)])
def test_a_slice_is_sent_with_its_stored_values(site, viewer, slope, intercept):
    ingest_slice(site, RescaleSlope=slope, RescaleIntercept=intercept)
    response = viewer.get(frame(1))
    assert response.headers["content-type"] == "application/octet-stream"
    values = values_of(response)
    assert np.corrcoef(values.ravel(), VALUES.ravel())[0, 1] > 0.999999
    assert len(np.unique(values)) == len(np.unique(VALUES))
    dark, bright = float(response.headers["X-Dark"]), float(response.headers["X-Bright"])
    assert values.min() <= dark < bright <= values.max()


def test_a_slice_with_a_single_value_can_be_shown(site, viewer):
    ingest(site.database, site.store, arrival(make_slice()))
    response = viewer.get(frame(1))
    assert set(values_of(response).ravel()) == {1.0}
    assert float(response.headers["X-Dark"]) < float(response.headers["X-Bright"])


@pytest.mark.parametrize("all_of_it", [False, True])
def test_padding_is_black_and_does_not_widen_the_window(site, viewer, all_of_it):
    values = VALUES.astype(np.int16)
    values[0, :3] = -32768
    if all_of_it:
        values[:] = -32768
    elements = {"Columns": 6, "PixelRepresentation": 1, "PixelData": values.tobytes()}
    ds = make_slice(**elements)
    ds.add_new("PixelPaddingValue", "SS", -32768)
    ingest(site.database, site.store, arrival(ds))
    response = viewer.get(frame(1))
    stored = np.frombuffer(response.content, "<u2").reshape(8, 6)
    assert not stored[values == -32768].any()
    low, high, dark = (float(response.headers[f"X-{name}"]) for name in ("Low", "High", "Dark"))
    shown = values[values != -32768] if not all_of_it else np.zeros(1)
    assert (low, high) == (shown.min(), shown.max())
    assert low <= dark <= high


def test_series_and_slices_are_listed_in_anatomical_order(site, viewer):
    for number in (3, 1, 2):
        ingest_slice(site, number, series=2, plane="axial", InstanceNumber=10 - number)
        ingest_slice(site, number, series=1, ImagePositionPatient=[-number * 4.0, 0, 0])
    all_series = viewer.get(f"{STUDY}/series").json()
    assert [(entry["number"], entry["plane"]) for entry in all_series] == [
        (1, "sagittal"),
        (2, "axial"),
    ]
    numbers = [
        [int(entry["instance"].rpartition(".")[2]) for entry in series["slices"]]
        for series in all_series
    ]
    assert numbers == [[3, 2, 1], [3, 2, 1]]  # from the patient's right; from the head
    assert all_series[0]["slices"][0] | {"instance": 0} == {
        "instance": 0, "frame": 0, "number": 3, "rows": 8, "columns": 6, "spacing": [30, 30],
    }  # fmt: skip


def test_a_quarantined_instance_is_not_shown(site, viewer):
    ingest_slice(site)
    ingest_slice(site, number=2, PatientID="P2")
    assert len(viewer.get(f"{STUDY}/series").json()[0]["slices"]) == 1
    assert viewer.get(frame(2)).status_code == 404


@pytest.mark.parametrize("case", ["removed", "lost", "damaged"])
def test_an_image_that_cannot_be_shown_is_left_out_and_the_others_are_listed(site, viewer, case):
    for number in (1, 2):
        ingest_slice(site, number)
    with site.database.transaction() as session:
        first = studies.images_in_use(session, 1)[0]
        if case == "removed":
            first.removed_at = first.received_at
    file = site.store.path(first.file)
    if case == "damaged":
        file.write_bytes(b"no DICOM")
    else:
        file.unlink()
    (series,) = viewer.get(f"{STUDY}/series").json()
    assert [entry["number"] for entry in series["slices"]] == [2]
    response = viewer.get(frame(1))
    assert response.status_code == (422 if case == "damaged" else 404)
    assert 'role="alert"' in response.text
    assert viewer.get(frame(2)).status_code == 200
