"""The picture for checking an analysis: points, colours and text are where they should be."""

from dataclasses import replace
from io import BytesIO
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageFont

from lumbar.reports import picture, text_drawing
from lumbar.reports.picture import AnnotatedSlice, Cell, draw
from lumbar.reports.slice_panel import RING_RADIUS
from lumbar.reports.text_drawing import (
    BACKGROUND,
    GREY,
    LIGHT,
    MARKER,
    SEVERITY_COLOURS,
    WARNING,
    text_width,
    wrap,
)
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Severity
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import TrainedOn
from tests.factories.headers import SLICE
from tests.study_factory import stored

POINT = ImagePoint("1.2.1", "1.2.840.10008.5.1.4.1.1.4", "1.2.1.1", None, 10.0, 10.0, 0.0, 0.0, 0.0)
CANAL = {level.label: np.array([0.0, 10.0 + 4 * n, 60.0 - 32 * n]) for n, level in enumerate(Level)}
TITLE = "Levels"
FIRST, AXIAL = ALL_FINDINGS[0], FindingKey(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L4_L5)
GREY_CROP = np.full((224, 224), 0.5, np.float32)
NOTICES = TrainedOn.SYNTHETIC.notices


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


def sagittal(spacing: tuple[float, float] = (1.0, 0.8)) -> AnnotatedSlice:
    """A smooth slice, brighter towards the back and the head, with a bright canal."""
    header = replace(SLICE, rows=320, columns=400, spacing=spacing)
    rows, columns = np.mgrid[: header.rows, : header.columns]
    image = 20 + columns * 0.2 + (header.rows - rows) * 0.1
    for point in CANAL.values():
        column, row = header.to_pixel(point)
        image += 100 * np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / 50)
    return AnnotatedSlice(TITLE, image.astype(np.float32), header, CANAL)


def graded(key: FindingKey, severity: Severity = Severity.NORMAL_MILD, shows: float = 0.9) -> Cell:
    probabilities = tuple(0.8 if s is severity else 0.1 for s in Severity)
    return Cell(Finding(*key.parts, probabilities, POINT, shows), GREY_CROP, "series 3, image 12")  # type: ignore[arg-type]


def corner(key: FindingKey) -> tuple[int, int]:
    """A cell's left and top."""
    column, row = list(Condition).index(key.condition), list(Level).index(key.level)
    return (
        picture.GRID_LEFT + column * (picture.CELL_WIDTH + picture.GAP),
        picture.TOP + row * (picture.CELL_HEIGHT + picture.GAP),
    )


def cell_of(pixels: np.ndarray, key: FindingKey) -> np.ndarray:
    x, y = corner(key)
    return pixels[y : y + picture.CELL_HEIGHT, x : x + picture.CELL_WIDTH]


def has_colour(pixels: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool((abs(pixels - np.array(colour)).max(axis=-1) <= tolerance).any())


def test_the_picture_is_a_png_of_one_screen_without_metadata():
    image = Image.open(
        BytesIO(draw(sagittal(), [graded(key) for key in ALL_FINDINGS], ["a line"], NOTICES))
    )
    assert image.format == "PNG"
    assert 1700 <= image.width <= 1900
    assert 1000 <= image.height <= 1200
    assert not image.info


def test_every_level_is_marked_at_its_point_true_to_scale():
    pixels = decoded(draw(sagittal(), [], [], NOTICES))
    to_mm = 320 / picture.GRID_HEIGHT  # the whole height of 320 rows of 1 mm
    middle = np.mean([point[1] for point in CANAL.values()])
    for point in CANAL.values():
        x = picture.MARGIN + (picture.SLICE_WIDTH - 1) / 2 + (point[1] - middle) / to_mm
        y = picture.TOP - 0.5 + (140.5 - point[2]) / to_mm
        assert has_colour(
            pixels[
                round(y) - 2 : round(y) + 3, round(x) - RING_RADIUS - 1 : round(x) - RING_RADIUS + 2
            ],
            MARKER,
        )
        assert pixels[round(y), round(x)].min() > 150  # the ring is open and the canal bright


@pytest.mark.parametrize("storage", list(product((False, True), repeat=3)))
def test_the_panel_is_the_same_however_the_slice_is_stored(storage):
    original = sagittal()
    image, header = stored(original.image, original.header, storage)
    expected = decoded(draw(original, [], [], NOTICES))
    again = decoded(draw(AnnotatedSlice(TITLE, image, header, CANAL), [], [], NOTICES))
    assert abs(expected - again).mean() < 0.1
    assert np.quantile(abs(expected - again), 0.9999) <= 8


def test_a_slice_without_points_is_drawn_without_markers():
    plain = draw(replace(sagittal(), points={}), [], [], NOTICES)
    panel = decoded(plain)[picture.TOP :, picture.MARGIN : picture.MARGIN + picture.SLICE_WIDTH]
    assert not has_colour(panel, MARKER)


def test_an_axial_slice_has_its_own_directions_and_long_names_inside_the_panel():
    header = replace(
        SLICE, orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), position=(-100.0, -100.0, 5.0)
    )
    points = {
        "Left subarticular stenosis": np.array([12.0, 0, 5]),
        "Right subarticular stenosis": np.zeros(3),
    }
    image = np.full((header.rows, header.columns), 0.5, np.float32)
    plain, marked = (
        decoded(draw(AnnotatedSlice(TITLE, image, header, m), [], [], NOTICES))
        for m in ({}, points)
    )
    beside = slice(picture.MARGIN + picture.SLICE_WIDTH, picture.GRID_LEFT)
    assert has_colour(marked, MARKER)
    assert (plain[:, beside] == marked[:, beside]).all()
    sagittal_letters = decoded(draw(AnnotatedSlice(TITLE, image, SLICE, {}), [], [], NOTICES))
    assert not (plain == sagittal_letters).all()


def test_nothing_of_the_header_but_its_geometry_is_drawn():
    original = sagittal()
    other = replace(
        original.header,
        study_instance_uid="1.9",
        series_instance_uid="1.9.1",
        sop_instance_uid="1.9.1.1",
    )
    assert draw(original, [], [], NOTICES) == draw(replace(original, header=other), [], [], NOTICES)


@pytest.mark.parametrize("severity", Severity)
def test_a_cell_is_framed_in_its_severitys_colour_and_in_no_other(severity):
    cell = cell_of(decoded(draw(None, [graded(AXIAL, severity)], [], NOTICES)), AXIAL)
    assert tuple(cell[1, 1]) == SEVERITY_COLOURS[severity]
    assert tuple(cell[-2, -2]) == SEVERITY_COLOURS[severity]
    assert not any(
        has_colour(cell, colour)
        for other, colour in SEVERITY_COLOURS.items()
        if other is not severity
    )


def test_severities_differ_in_words_and_not_in_colour_alone(monkeypatch):
    monkeypatch.setattr(picture, "SEVERITY_COLOURS", dict.fromkeys(Severity, LIGHT))
    assert len(
        {draw(None, [graded(AXIAL, severity)], [], NOTICES) for severity in Severity}
    ) == len(Severity)


@pytest.mark.parametrize("severity", Severity)
def test_the_text_of_a_cell_stays_inside_it(severity):
    pixels = decoded(draw(None, [graded(AXIAL, severity, shows=0.2)], [], NOTICES))
    inside = cell_of(pixels, AXIAL)[
        picture.CELL_BORDER : -picture.CELL_BORDER, -picture.CELL_BORDER - 2 : -picture.CELL_BORDER
    ]
    assert (inside == BACKGROUND).all()


def test_the_crop_lies_in_its_cell_with_its_centre_marked():
    x = y = picture.CELL_BORDER + 3 + picture.CROP // 2
    cell = cell_of(decoded(draw(None, [graded(FIRST)], [], NOTICES)), FIRST)
    assert tuple(cell[y, x]) == (128, 128, 128)
    assert tuple(cell[y, x + 8]) == tuple(cell[y - 8, x]) == MARKER


def test_an_uncertain_view_is_written_in_the_warning_colour():
    certain = cell_of(decoded(draw(None, [graded(FIRST, shows=0.5)], [], NOTICES)), FIRST)
    uncertain = cell_of(decoded(draw(None, [graded(FIRST, shows=0.49)], [], NOTICES)), FIRST)
    assert not has_colour(certain, WARNING)
    assert has_colour(uncertain, WARNING)


@pytest.mark.parametrize("condition", Condition)
def test_axial_crops_are_labelled_right_and_left_and_others_are_not(condition):
    key = FindingKey(condition, Level.L3_L4)
    crop = cell_of(decoded(draw(None, [graded(key)], [], NOTICES)), key)[
        :, picture.CELL_BORDER + 3 :
    ]
    axial = condition.role is Role.AXIAL_T2
    assert has_colour(crop[:, :20], LIGHT) is axial
    assert has_colour(crop[:, picture.CROP - 20 : picture.CROP], LIGHT) is axial


def test_a_finding_not_assessed_shows_its_reason_and_no_crop():
    cells = [
        Cell(Finding(*FIRST.parts, reason=reason), GREY_CROP)
        for reason in ("no slice", "no level " * 60)
    ]
    first, second = (cell_of(decoded(draw(None, [cell], [], NOTICES)), FIRST) for cell in cells)
    assert (first != second).any()
    for cell in (first, second):
        assert has_colour(cell, GREY)
        assert not (cell == 128).all(axis=-1).any()
        assert not any(has_colour(cell, colour) for colour in SEVERITY_COLOURS.values())
        assert (cell[-8:-1, 1:-1] == BACKGROUND).all()  # the longest reason ends above the edge


def test_equal_arguments_give_equal_bytes():
    assert draw(sagittal(), [graded(AXIAL)], ["one"], NOTICES) == draw(
        sagittal(), [graded(AXIAL)], ["one"], NOTICES
    )


def test_a_picture_is_drawn_without_a_slice_or_any_finding():
    assert Image.open(BytesIO(draw(None, [], [], NOTICES))).width == picture.WIDTH


def test_notices_are_drawn_below_and_nowhere_else():
    with_one, with_other = (
        decoded(draw(None, [], [], [notice])) for notice in (NOTICES[0], NOTICES[2])
    )
    rows = np.nonzero((with_one != with_other).any(axis=(1, 2)))[0]
    assert rows.min() >= picture.TEXT_TOP
    assert has_colour(with_one[picture.TEXT_TOP :], WARNING)


@pytest.mark.slow
def test_lines_are_drawn_and_their_number_is_bounded():
    plain, with_line, with_many = (
        decoded(draw(None, [], lines, NOTICES))
        for lines in ([], ["series 1"], [f"series {n}" for n in range(9999)])
    )
    assert (plain != with_line)[picture.TEXT_TOP :, : picture.NOTICES_LEFT].any()
    assert len(with_many) < 2000


def test_the_en_dash_is_drawn_as_one():
    canvas = text_drawing.Canvas(100, 60)
    canvas.write(20, 20, "–", 22)
    rows, columns = np.nonzero((np.asarray(canvas.image) != BACKGROUND).any(axis=-1))
    assert np.ptp(columns) > 8
    assert np.ptp(rows) <= 2
    assert 20 < rows.mean() < 42


def test_the_font_has_every_other_character_in_use():
    font = ImageFont.load_default(20)
    missing = bytes(font.getmask("\uffff"))
    characters = "".join(
        [
            *NOTICES,
            picture.LEGEND,
            "·/…",
            *(level.label for level in Level),
            *picture.HEADINGS.values(),
        ]
    )
    missing_letters = {
        letter for letter in characters if letter != " " and bytes(font.getmask(letter)) == missing
    }
    assert missing_letters == {text_drawing.DASH}


@pytest.mark.parametrize("colour", [LIGHT, GREY, MARKER, WARNING, *SEVERITY_COLOURS.values()])
def test_every_colour_is_readable_on_the_background(colour):
    def luminance(rgb: tuple[int, int, int]) -> float:
        linear = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
            for v in (c / 255 for c in rgb)
        ]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    assert (luminance(colour) + 0.05) / (luminance(BACKGROUND) + 0.05) >= 4.5  # WCAG AA


def test_text_is_wrapped_to_the_width_and_cut_where_it_is_too_long():
    text = (
        "a plain line – of several words and one-that-is-much-too-long-to-stand-in-a-line-by-itself"
    )
    lines = wrap(text, 16, 150, 20)
    assert all(text_width(line, 16) <= 150 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    cut = wrap(text, 16, 150, 2)
    assert len(cut) == 2
    assert cut[1].endswith("…")
    assert wrap("", 16, 150, 2) == [""]
