"""A patient's bones, discs and foramina as shapes, in painting order."""

from collections.abc import Iterator

from lumbar.phantoms.chain import Chain, Disc, Vertebra
from lumbar.phantoms.patient import PEDICLES, PEDICLES_ABOVE, PEDICLES_S1, Patient
from lumbar.phantoms.shapes import Block, Capsule, Frame, Shape, Tissue
from lumbar.phantoms.truth import measure
from lumbar.spine.anatomy import Condition, Level, Side

# Thickness of cortical bone, mm.
RIM = 0.9
SIDES = ((Side.LEFT, 1), (Side.RIGHT, -1))


def shapes(patient: Patient) -> Iterator[Shape]:
    """All structures with an edge, except the spinal canal's contents.

    Later shapes cover earlier ones.
    """
    yield from _lateral_bones(patient)
    for disc in patient.discs:
        yield from _disc(disc)
    yield _remnant(patient)
    for level in Level:
        for side, sign in SIDES:
            yield from _foramen(patient, level, side, sign)
    yield from _bodies(patient.chain)
    yield from patient.lesions
    yield from _arches(patient)
    for level in Level:
        yield from _joints(patient, level)


def _lateral_bones(patient: Patient) -> Iterator[Shape]:
    """The sacral alae and the ribs."""
    for part in patient.chain.sacrum[:2]:
        yield from _ala(part, patient.scale)
    for body in patient.vertebrae:
        if body.name.startswith("T"):
            yield from _ribs(body, patient.scale)


def _bodies(chain: Chain) -> Iterator[Shape]:
    """The vertebral bodies and the sacral segments."""
    for body in chain.sacrum:
        yield from _body(body, square=chain.squared and body.name == "S1")
    for body in chain.vertebrae:
        yield from _body(body, square=True)


def _arches(patient: Patient) -> Iterator[Shape]:
    """The posterior elements of all vertebrae, and a transitional one's transverse processes."""
    chain, s = patient.chain, patient.scale
    yield from _posterior_elements(
        chain.endplate, "S1", chain.vertebrae[0].depths[0], PEDICLES_S1, s
    )
    for i, body in enumerate(chain.vertebrae):
        lateral = PEDICLES[i] if i < len(PEDICLES) else PEDICLES_ABOVE
        yield from _posterior_elements(
            body.frame, body.name, body.depths[0], lateral, s * min(1.0, 0.3 + 0.7 * body.size)
        )
    if chain.transitional:
        yield from _wide_processes(chain.vertebrae[0], s)


def _body(body: Vertebra, *, square: bool) -> Iterator[Shape]:
    yield Block(
        body.frame,
        Tissue.MARROW,
        RIM,
        height=body.height,
        depths=body.depths,
        widths=body.widths,
        slopes=body.slopes,
        hollow=1.6 if square else 0.3,
        waist=0.08 if square else 0.0,
    )
    # The basivertebral vein.
    if not body.name.startswith("S"):
        back = body.depths[0] * 0.92
        yield Capsule(
            body.frame,
            Tissue.VEIN,
            blur=2.0,
            start=(0, back - 8, 0),
            end=(0, back - 1, 0),
            radii=(4, 1.5, 1.6),
        )


def _disc(disc: Disc) -> Iterator[Shape]:
    def block(tissue: Tissue, share: float, height: float, blur: float) -> Shape:
        return Block(
            disc.frame,
            tissue,
            blur=blur,
            height=height,
            depths=(disc.depth * share,) * 2,
            widths=(disc.width * share,) * 2,
            slopes=(disc.slope,) * 2,
        )

    yield block(Tissue.ANNULUS, 1.04, disc.height + 2.5, 0)
    yield block(Tissue.NUCLEUS, 0.72, disc.height + 0.8, 5.0)


def _remnant(patient: Patient) -> Shape:
    s1, gap = patient.chain.sacrum[0], patient.chain.remnant
    frame = Frame(s1.frame.to_patient(0, 0, -s1.height - gap / 2), s1.frame.angle)
    depth = s1.depths[0] * 0.9
    return Block(frame, Tissue.NUCLEUS, height=gap / 2 + 1, depths=(depth,) * 2, widths=(14.0,) * 2)


def _ribs(body: Vertebra, s: float) -> Iterator[Shape]:
    """From the posterior edge of the body along the transverse process, then around the chest."""
    depth, width = body.depths[0], body.widths[0]
    neck, turn, side = (
        (width - 2, depth - 2, 6 * s),
        (44 * s, depth + 22 * s, -6 * s),
        (112 * s, depth - 30 * s, -45 * s),
    )
    for sign in (1, -1):
        for start, end in ((neck, turn), (turn, side)):
            yield Capsule(
                body.frame,
                Tissue.MARROW,
                RIM,
                start=(sign * start[0], *start[1:]),
                end=(sign * end[0], *end[1:]),
                radii=(4.0 * s, 3.6 * s, 5.6 * s),
            )


def _wide_processes(body: Vertebra, s: float) -> Iterator[Shape]:
    """The transverse processes of a transitional vertebra, broad and fused with the sacral alae."""
    for sign in (1, -1):
        yield Capsule(
            body.frame,
            Tissue.MARROW,
            RIM,
            start=(sign * 24 * s, body.depths[0] - 4 * s, -2 * s),
            end=(sign * 42 * s, body.depths[0], -20 * s),
            radii=(9 * s, 8 * s, 12 * s),
        )


def _ala(part: Vertebra, scale: float) -> Iterator[Shape]:
    for sign in (1, -1):
        yield Capsule(
            part.frame,
            Tissue.MARROW,
            RIM,
            start=(sign * 22 * scale, 0, 0),
            end=(sign * 46 * scale, 8, -4),
            radii=(10 * scale, 11 * scale, 12 * scale),
        )


def _foramen(patient: Patient, level: Level, side: Side, sign: int) -> Iterator[Shape]:
    """Fat around a nerve root, framed by ligament and annulus, which appear where fat is lost.

    Normal: 9–10 mm front to back, filled with fat. Moderate: the root touches front and back.
    Severe: under 3 mm, the root flattened.
    """
    condition = next(c for c in Condition if c.side is side and "foraminal" in c)
    burden, s = patient.burden(condition, level), patient.scale
    depth = measure(burden, 5.0, 3.9, 2.4, 0.9) * s
    height = measure(burden, 8.5, 7.8, 6.2, 3.5) * s
    disc, middle = patient.disc(level), patient.foramen_offset(level)
    inner, outer, back = sign * (middle - 4 * s), sign * (middle + 6 * s), disc.depth + 4.8 * s

    def tube(tissue: Tissue, back: float, up: float, radii: tuple[float, float, float]) -> Shape:
        return Capsule(
            disc.frame, tissue, start=(inner, back, up), end=(outer, back, up), radii=radii
        )

    yield tube(Tissue.LIGAMENT, back, 8 * s, (3 * s, 5.6 * s, 9 * s))
    yield tube(Tissue.ANNULUS, back - 1.5 * s, -1 * s, (3 * s, 4.5 * s, 7 * s))
    yield tube(Tissue.FAT, back, 8 * s, (3 * s, depth, height))
    yield tube(Tissue.FAT, back, -1 * s, (3 * s, 0.6 * depth, 0.75 * height))
    root = 2.7 * s
    flat = min(root, depth + 0.3)
    yield Capsule(
        disc.frame,
        Tissue.ROOT,
        start=(sign * 8 * s, disc.depth + 7 * s, 16 * s),
        end=(sign * (2 * middle - 8 * s), disc.depth + 3 * s, 5 * s),
        radii=(root, flat, root),
    )


def _posterior_elements(
    frame: Frame, name: str, depth: float, lateral: float, s: float
) -> Iterator[Shape]:
    """Pedicles, laminae, articular, transverse and spinous processes of a vertebra.

    ``depth``: half the depth of its body; ``lateral``: distance of the pedicles from the midline;
    mm.
    """

    def bone(
        start: tuple[float, float, float],
        end: tuple[float, float, float],
        radii: tuple[float, float, float],
    ) -> Shape:
        (a, b, c), (d, e, f) = start, end
        return Capsule(
            frame,
            Tissue.MARROW,
            RIM,
            start=(a * s, depth + b * s, c * s),
            end=(d * s, depth + e * s, f * s),
            radii=(radii[0] * s, radii[1] * s, radii[2] * s),
        )

    for sign in (1, -1):
        far = sign * lateral
        if name != "S1":
            yield bone((far + sign * 3, 5, 4), (sign * 40, 12, 4), (3, 3.5, 5))
            yield bone((far, 9, 4), (sign * (lateral - 4), 18, -7), (3.5, 3.5, 4))
            yield bone(
                (sign * (lateral - 4), 18.5, -10), (sign * (lateral - 4), 19.5, -20), (5.4, 4.6, 5)
            )
        yield bone((far, -4, 6), (far, 9, 5), (4.2, 4, 6.8))
        yield bone((sign * (lateral + 1), 12.5, 7), (far, 14, 20), (5.6, 4.2, 5))
        yield bone((sign * (lateral - 4), 18, -4), (sign * 2.5, 23.5, -8), (3.2, 3.2, 7.5))
    reach, drop, high = {
        "S": (34, -14, 9),
        "L": (48, -14, 9),
        "T": (44, -38, 6),
        "C": (42, -14, 5),
    }[name[0]]
    yield bone((0, 26, -9), (0, reach, drop), (3, 4, high))


def _joints(patient: Patient, level: Level) -> Iterator[Shape]:
    """The bright line of each facet joint."""
    disc, s = patient.disc(level), patient.scale
    lateral = patient.foramen_offset(level) - 1.5 * s
    for sign in (1, -1):
        yield Capsule(
            disc.frame,
            Tissue.NUCLEUS,
            start=(sign * (lateral - 3 * s), disc.depth + 17.2 * s, 0),
            end=(sign * (lateral + 3 * s), disc.depth + 14.8 * s, 2),
            radii=(0.8, 0.7, 5 * s),
        )
