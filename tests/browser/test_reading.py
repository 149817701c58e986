"""A reader signs in, opens the severe study by keys, views it, corrects a finding, signs out."""

import csv
import io
import re
import zipfile

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from db.read_models.study_detail import study_detail
from db.studies import find, images_in_use
from lumbar.dicom.pixels import read_slice
from tests.browser.site_with_images import CANAL, NORMAL, RECESS
from tests.factories.accounts import PASSWORD

pytestmark = pytest.mark.slow

# The number of coloured pixels: the marks are coloured, the slice is grey.
COLOURED = """canvas => {
  const ink = new OffscreenCanvas(canvas.width, canvas.height)
    .getContext("2d", { willReadFrequently: true });
  ink.drawImage(canvas, 0, 0);
  const { data } = ink.getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const pixel = [data[i], data[i + 1], data[i + 2]];
    if (Math.max(...pixel) - Math.min(...pixel) > 60) count++;
  }
  return count;
}"""
# The canvas as 32 × 32 grey values.
SMALL = """canvas => {
  const ink = new OffscreenCanvas(32, 32).getContext("2d", { willReadFrequently: true });
  ink.imageSmoothingQuality = "high";
  ink.drawImage(canvas, 0, 0, 32, 32);
  return Array.from(ink.getImageData(0, 0, 32, 32).data.filter((_, i) => i % 4 === 0));
}"""


def pixels(page: Page) -> str:
    return page.locator("#image").evaluate("canvas => canvas.toDataURL()")


def shown_slice(page: Page) -> str:
    return page.locator("#image").get_attribute("data-shown")


def slices_by_series(page: Page, served) -> dict[str, list[str]]:
    """The slices of each series, in the order that the page gets them."""
    series_slices = page.request.get(f"/studies/{served.severe}/series").json()
    return {
        series["uid"]: [f"{s['instance']}.{s['frame']}" for s in series["slices"]]
        for series in series_slices
    }


def shown_series(page: Page, served) -> list[str]:
    """The slices of the series that is shown."""
    series_slices = slices_by_series(page, served).values()
    return next(slices for slices in series_slices if shown_slice(page) in slices)


@pytest.fixture
def viewer(page, served) -> Page:
    """The severe study, once its first slice is drawn."""
    page.goto(f"/studies/{served.severe}")
    expect(page.locator("#image")).to_have_attribute("data-shown", re.compile(r"\d"))
    return page


def point_of(served, key):
    with served.site.database.reading() as session:
        cells = study_detail(session, served.severe, served.site.ranking).findings
    (point,) = [cell.finding.point for cell in cells if cell.finding.key == key]
    return point


def test_the_severe_slice_is_reached_from_the_sign_in_page_by_keys_alone(open_page, served):
    page = open_page(None)
    page.goto("/")
    expect(page).to_have_url(re.compile("/sign-in$"))
    page.keyboard.type("reader")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{served.root}/")
    page.wait_for_load_state()
    expect(page.locator("tr[data-study]").first).to_have_attribute("data-study", served.severe)
    expect(page.locator("tr[data-study]").first).to_contain_text("L4/L5 canal")
    page.keyboard.press("j")
    expect(page.locator("tr.selected")).to_have_attribute("data-study", served.severe)
    page.keyboard.press("j")
    expect(page.locator("tr.selected")).not_to_have_attribute("data-study", served.severe)
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{served.root}/studies/{served.severe}")
    expect(page.locator("#image")).to_have_attribute(
        "data-shown", f"{point_of(served, CANAL).sop_instance_uid}.0"
    )


def test_keys_type_into_a_text_field(page, served):
    page.goto("/")
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("jk/")
    expect(page.get_by_label("Search")).to_have_value("jk/")
    expect(page.locator("tr.selected")).to_have_count(0)


def test_a_mark_is_drawn_on_the_slice_of_its_finding_and_on_no_other(viewer, served):
    image = viewer.locator("#image")
    assert image.evaluate(COLOURED) > 20
    series = shown_series(viewer, served)
    viewer.locator("#slice").fill("0")
    expect(image).to_have_attribute("data-shown", series[0])
    assert image.evaluate(COLOURED) == 0


def test_the_image_on_the_screen_is_the_stored_one(viewer, served):
    slices = next(iter(slices_by_series(viewer, served).values()))
    viewer.get_by_label("Series").select_option(index=0)
    viewer.locator("#slice").fill("0")
    expect(viewer.locator("#image")).to_have_attribute("data-shown", slices[0])
    with served.site.database.reading() as session:
        instances = images_in_use(session, find(session, served.severe).id)
    (file,) = [
        instance.file for instance in instances if f"{instance.sop_instance_uid}.0" == slices[0]
    ]
    stored = read_slice(served.site.store.path(file), None)
    dark, bright = np.percentile(stored, (1, 99.5))
    expected = cv2.resize(
        np.clip(255 * (stored - dark) / (bright - dark), 0, 255),
        (32, 32),
        interpolation=cv2.INTER_AREA,
    )
    on_screen = np.array(viewer.locator("#image").evaluate(SMALL), float).reshape(32, 32)
    assert abs(on_screen - expected).mean() < 4


def test_wheel_and_arrow_keys_move_through_the_slices_and_stop_at_the_ends(viewer, served):
    image = viewer.locator("#image")
    series = shown_series(viewer, served)
    at = series.index(shown_slice(viewer))
    before = pixels(viewer)
    image.hover()
    viewer.mouse.wheel(0, 100)
    expect(image).to_have_attribute("data-shown", series[at + 1])
    assert pixels(viewer) != before
    viewer.mouse.wheel(0, -100)
    expect(image).to_have_attribute("data-shown", series[at])
    assert pixels(viewer) == before
    image.focus()
    for key, step in {"ArrowDown": 1, "ArrowRight": 2, "ArrowUp": 1, "ArrowLeft": 0}.items():
        viewer.keyboard.press(key)
        expect(image).to_have_attribute("data-shown", series[at + step])
    expect(viewer.locator("#where")).to_contain_text(f"{at + 1} of {len(series)}")
    viewer.locator("#slice").fill(str(len(series) - 1))
    expect(image).to_have_attribute("data-shown", series[-1])
    image.focus()
    viewer.keyboard.press("ArrowDown")
    expect(viewer.locator("#where")).to_contain_text(f"{len(series)} of {len(series)}")
    assert shown_slice(viewer) == series[-1]


def test_every_series_can_be_chosen_and_has_all_its_images(viewer, served):
    image = viewer.locator("#image")
    series_slices = slices_by_series(viewer, served)
    assert sum(map(len, series_slices.values())) == 60
    expect(viewer.locator("#series option")).to_have_count(len(series_slices))
    for number, slices in enumerate(series_slices.values()):
        viewer.get_by_label("Series").select_option(index=number)
        expect(image).to_have_attribute("data-shown", slices[len(slices) // 2])


def test_dragging_changes_window_and_level_until_they_are_reset(viewer):
    before = pixels(viewer)
    box = viewer.locator("#image").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    images = [before]
    for to in ((x + 120, y), (x, y + 120)):
        viewer.mouse.move(x, y)
        viewer.mouse.down()
        viewer.mouse.move(*to, steps=4)
        viewer.mouse.up()
        assert pixels(viewer) not in images
        images.append(pixels(viewer))
    viewer.mouse.move(x - 50, y)
    assert pixels(viewer) == images[-1]  # the button has been released
    viewer.get_by_role("button", name="Reset window").click()
    viewer.wait_for_function(
        "before => document.getElementById('image').toDataURL() === before", arg=before
    )


def test_another_cell_of_the_grid_shows_its_finding_and_slice(viewer, served):
    cell = viewer.locator(f'a.cell[data-at="{RECESS.condition}.{RECESS.level}"]')
    expect(cell).to_have_accessible_name("L3/L4 Left subarticular stenosis: Moderate")
    cell.click()
    point = point_of(served, RECESS)
    expect(viewer.locator("#image")).to_have_attribute("data-shown", f"{point.sop_instance_uid}.0")
    expect(viewer.get_by_role("heading", name="L3/L4 Left subarticular stenosis")).to_be_visible()
    expect(viewer.locator("a.cell[aria-current=true]")).to_have_count(1)
    expect(viewer.locator("#finding")).to_contain_text("0.800")


def test_a_correction_is_shown_and_counted(viewer, served):
    viewer.get_by_role("radio", name="Moderate").check()
    viewer.get_by_label("Comment").fill("the sac is <not> that narrow")
    viewer.get_by_role("button", name="Save review").click()
    expect(viewer.get_by_role("status").first).to_have_text("Your review is saved.")
    cell = viewer.locator(f'a.cell[data-at="{CANAL.condition}.{CANAL.level}"]')
    expect(cell).to_contain_text("Severe")
    expect(cell).to_contain_text("corrected: Moderate")
    expect(viewer.locator("#finding")).to_contain_text("Reviewed by reader")
    expect(viewer.locator("#finding")).to_contain_text("the sac is <not> that narrow")
    viewer.goto("/quality")
    week = viewer.locator("table.weeks tbody tr").first
    expect(week.locator("td").nth(-2)).to_have_text("1")
    expect(week.locator("td").nth(-1)).to_have_text("0 %")
    with viewer.expect_download() as saved:
        viewer.get_by_role("link", name="Reviewed labels").click()
    with zipfile.ZipFile(saved.value.path()) as archive:
        (label,) = csv.DictReader(io.StringIO(archive.read("train.csv").decode()))
    assert label["study_id"] == served.severe
    assert {
        column: severity for column, severity in label.items() if severity and column != "study_id"
    } == {CANAL.row_id("")[1:]: "Moderate"}


def test_a_study_marked_as_read_leaves_the_worklist_until_it_is_marked_as_unread(page, served):
    page.goto(f"/studies/{NORMAL}")
    page.get_by_role("button", name="Mark as read").click()
    expect(page).to_have_url(re.compile(r"/\?done=read$"))
    expect(page.locator(f'tr[data-study="{NORMAL}"]')).to_have_count(0)
    page.goto(f"/studies/{NORMAL}")
    page.get_by_role("button", name="Mark as unread").click()
    page.goto("/")
    expect(page.locator(f'tr[data-study="{NORMAL}"]')).to_be_visible()


def test_after_signing_out_going_back_shows_nothing(page, served):
    page.goto(f"/studies/{NORMAL}")
    expect(page.get_by_role("heading", name="Normal, Nora")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in$"))
    page.go_back()
    expect(page).to_have_url(re.compile("/sign-in"))
    expect(page.get_by_text("Nora")).to_have_count(0)
