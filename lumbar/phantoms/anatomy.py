"""A patient's bones, discs and foramina as shapes, in the order in which they cover each other."""

from collections.abc import Iterator

from lumbar.phantoms.patient import PEDICLE, Disc, Patient, Vertebra
from lumbar.phantoms.shapes import Block, Capsule, Frame, Shape, Tissue
from lumbar.phantoms.truth import measure
from lumbar.spine.anatomy import Condition, Level, Side

RIM = 0.9  # mm of cortical bone
Sides = ((Side.LEFT, 1), (Side.RIGHT, -1))


def shapes(patient: Patient) -> Iterator[Shape]:
    """Everything with an edge except what lies inside the spinal canal; later shapes cover earlier ones."""
    for part in patient.sacrum[:2]:
        yield from _ala(part, patient.scale)
    for disc in patient.discs:
        yield from _disc(disc)
    yield _remnant(patient)
    for level in Level:
        for side, sign in Sides:
            yield from _foramen(patient, level, side, sign)
    for body in (*patient.sacrum, *patient.vertebrae):
        yield from _body(body)
    yield from _posterior_elements(patient.endplate, "S1", patient.vertebrae[0].depths[0], patient.scale)
    for body in patient.vertebrae:
        yield from _posterior_elements(body.frame, body.name, body.depths[0], patient.scale)
    for level in Level:
        yield from _joints(patient, level)


def _body(body: Vertebra) -> Iterator[Shape]:
    sacral = body.name.startswith("S")
    yield Block(
        body.frame,
        Tissue.MARROW,
        RIM,
        height=body.height,
        depths=body.depths,
        widths=body.widths,
        slopes=body.slopes,
        hollow=0.3 if sacral else 1.6,
        waist=0.0 if sacral else 0.08,
    )
    if not sacral:  # the basivertebral vein
        back = body.depths[0] * 0.92
        yield Capsule(
            body.frame, Tissue.VEIN, blur=2.0, start=(0, back - 8, 0), end=(0, back - 1, 0), radii=(4, 1.5, 1.6)
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
    s1 = patient.sacrum[0]
    frame = Frame(s1.frame.to_patient(0, 0, -s1.height - patient.remnant / 2), s1.frame.angle)
    depth = s1.depths[0] * 0.9
    return Block(frame, Tissue.NUCLEUS, height=patient.remnant / 2 + 1, depths=(depth,) * 2, widths=(14.0,) * 2)


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
    """Fat around a root, in a frame of ligament and annulus that shows where the fat is lost.

    Healthy 9–10 mm front to back and all fat; moderate, the root touches front and back; severe, under 3 mm and the
    root flattened.
    """
    condition = next(c for c in Condition if c.side is side and "foraminal" in c)
    burden, s = patient.burden(condition, level), patient.scale
    depth = measure(burden, 5.0, 3.9, 2.4, 0.9) * s
    height = measure(burden, 8.5, 7.8, 6.2, 3.5) * s
    disc, middle = patient.disc(level), patient.foramen_offset(level)
    inner, outer, back = sign * (middle - 4 * s), sign * (middle + 6 * s), disc.depth + 4.8 * s

    def tube(tissue: Tissue, back: float, up: float, radii: tuple[float, float, float]) -> Shape:
        return Capsule(disc.frame, tissue, start=(inner, back, up), end=(outer, back, up), radii=radii)

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


def _posterior_elements(frame: Frame, name: str, depth: float, s: float) -> Iterator[Shape]:
    """Pedicles, laminae, joint processes, transverse and spinous process of a vertebra; depth is its body's half."""
    aside = PEDICLE.get(name, 15.0)

    def bone(
        start: tuple[float, float, float], end: tuple[float, float, float], radii: tuple[float, float, float]
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
        far = sign * aside
        if name != "S1":
            yield bone((far + sign * 3, 5, 4), (sign * 40, 12, 4), (3, 3.5, 5))
            yield bone((far, 9, 4), (sign * (aside - 4), 18, -7), (3.5, 3.5, 4))
            yield bone((sign * (aside - 4), 18.5, -10), (sign * (aside - 4), 19.5, -20), (5.4, 4.6, 5))
        yield bone((far, -4, 6), (far, 9, 5), (4.2, 4, 6.8))
        yield bone((sign * (aside + 1), 12.5, 7), (far, 14, 20), (5.6, 4.2, 5))
        yield bone((sign * (aside - 4), 18, -4), (sign * 2.5, 23.5, -8), (3.2, 3.2, 7.5))
    reach = 34 if name == "S1" else 48
    yield bone((0, 26, -9), (0, reach, -14), (3, 4, 9))


def _joints(patient: Patient, level: Level) -> Iterator[Shape]:
    """The bright line of each facet joint."""
    disc, s = patient.disc(level), patient.scale
    aside = patient.foramen_offset(level) - 1.5 * s
    for sign in (1, -1):
        yield Capsule(
            disc.frame,
            Tissue.NUCLEUS,
            start=(sign * (aside - 3 * s), disc.depth + 17.2 * s, 0),
            end=(sign * (aside + 3 * s), disc.depth + 14.8 * s, 2),
            radii=(0.8, 0.7, 5 * s),
        )
