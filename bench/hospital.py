"""Three years of a hospital's studies as database rows, without image files.

More studies arrive by day than by night. Nearly all are read, except those of the last hours. Every
study has findings, series, a job and search keys; only the newest have reports and deliveries
(20,000), reviews (5,000) and images (3,000).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.synthetic_findings import COLUMNS, readings
from db.read_models.study_search import keys_of
from lumbar.spine.anatomy import Role, Severity

# Table, columns, rows.
Batch = tuple[str, tuple[str, ...], list[tuple[Any, ...]]]

DAYS = 3 * 365
# Studies of the last hours, most of them unread; and how long ago at most they arrived, s.
RECENT, RECENT_S = 400, 8 * 3600
# Older unread studies, and the number of latest studies among which they are.
UNREAD, UNREAD_AMONG = 300, 90_000
# The numbers of newest studies with reports, with reviews (every 20th) and with images.
REPORTED, REVIEWED, WITH_IMAGES = 20_000, 100_000, 3_000
BATCH = 2_000
ROOT = "1.2.276.0.7230010.3.1"
MR, SR, IMPLICIT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.1.2"
# Relative number of studies by hour of the day.
HOURS = [*[1] * 5, 2, 6, *[20] * 10, 12, 8, 4, 3, 2, 1, 1]
SCANNERS = [
    f"{maker} {station}"
    for maker, stations in {
        "SIEMENS Aera": ("MRC4512", "MRC4513", "AWP1"),
        "SIEMENS Skyra": ("MRC3310", "AWP2"),
        "Philips Ingenia": ("PHMR1", "PHMR2", "PHMR3"),
        "GE SIGNA Artist": ("GEMR1", "GEMR2"),
        "Canon Vantage": ("TMSC1", "TMSC2"),
    }.items()
    for station in stations
]
COMMON = """Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Schäfer
Koch Bauer Richter Klein Wolf Schröder Neumann Schwarz Zimmermann Braun Krüger Hofmann Hartmann
Lange Schmitt Werner Krause Meier Lehmann Schmid Schulze Maier Köhler Herrmann König Walter
Mayer Huber Kaiser Fuchs Peters Lang Scholz Möller Weiß Jung Hahn Schubert Vogel Friedrich
Keller Günther Frank Berger Winkler Roth Beck Lorenz Baumann Yılmaz Kaya Nguyen Kowalski Novák"""
FIRST_NAMES = """Anna Maria Peter Michael Thomas Ursula Andreas Monika Stefan Petra Klaus Sabine
Hans Renate Jürgen Helga Karin Wolfgang Brigitte Christian Ingrid Frank Erika Markus Andrea Uwe
Gisela Daniel Claudia Matthias Julia Alexander Sophie Lukas Emma Mehmet Ayşe Olga Piotr Đức"""
RARE_BEGINNINGS = (
    "Acker Birken Dorn Eich Felsen Gries Hasel Linden Ober Quast Rosen Thal Unter Wald Zell"
)
RARE_ENDINGS = (
    "bach berg brink burg dorf feld hagen haus heim hof horst kamp meier mann rath roth stein wald"
)

BUNDLE = (
    "id",
    "name",
    "version",
    "weights_sha256",
    "trained_on",
    "preprocessing_version",
    "first_used_at",
)
PATIENT = ("id", "issuer", "patient_identifier", "name", "birth_date", "sex")
STUDY = (
    "id",
    "patient_id",
    "study_instance_uid",
    "accession_number",
    "study_date",
    "description",
    "scanner",
    "stat",
    "state",
    "reason",
    "revision",
    "first_received_at",
    "last_received_at",
    "ended_at",
    "images_removed_at",
    "severe",
    "trained_on",
    "read_at",
    "expired_at",
    "result_s",
    "kept_from_s",
)
FINDING = (
    "id",
    "study_id",
    "revision",
    "superseded",
    "found_at",
    "bundle_id",
    "series_instance_uid",
    "sop_class_uid",
    "sop_instance_uid",
    *COLUMNS,
)
REVIEW = ("finding_id", "reviewer", "severity", "comment", "reviewed_at")
JOB = (
    "kind",
    "destination",
    "study_id",
    "revision",
    "report_id",
    "priority",
    "state",
    "run_after",
    "attempts",
    "losses",
    "last_error",
    "created_at",
    "ended_at",
)
REPORT = (
    "id",
    "study_id",
    "revision",
    "sop_class_uid",
    "sop_instance_uid",
    "series_instance_uid",
    "sha256",
    "file",
    "created_at",
)
SERIES = ("id", "study_id", "series_instance_uid", "series_number", "description")
INSTANCE = (
    "series_id",
    "sop_instance_uid",
    "sop_class_uid",
    "transfer_syntax_uid",
    "sha256",
    "size",
    "file",
    "slices",
    "role",
    "source",
    "received_at",
)


@dataclass(frozen=True)
class _Study:
    """The values that a study's rows share; ``newest`` is its rank by age, 1 for the newest."""

    id: int
    newest: int
    state: str
    stat: bool
    revision: int
    received_at: datetime
    done_at: datetime

    @property
    def ended(self) -> bool:
        return self.state not in ("receiving", "queued", "analysing")


class Hospital:
    """A hospital's studies; ``rows`` yields their rows by table, in batches."""

    def __init__(self, studies: int, now: datetime, seed: int = 1) -> None:
        self.studies, self._now = studies, now
        self._rng = np.random.default_rng(seed)
        # Many studies have the same findings.
        self._readings = readings(self._rng, min(20_000, studies))
        self._patients = self._draw_patients()
        self._findings = self._reports = 0

    def rows(self) -> Iterator[tuple[int, list[Batch]]]:
        """For each batch, the number of studies and the rows by table."""
        began = _text(self._now - timedelta(days=DAYS))
        weights = (
            ("phantom", "1", "synthetic"),
            ("ours", "1", "clinical"),
            ("ours", "2", "clinical"),
        )
        bundles = [
            (n, *name, f"{n:064x}", on, "1", began) for n, (*name, on) in enumerate(weights, 1)
        ]
        yield 0, [("bundle", BUNDLE, bundles), ("patient", PATIENT, self._patients)]
        received = self._arrivals()
        recent = min(RECENT, self.studies // 5)
        older = np.arange(max(0, self.studies - UNREAD_AMONG), self.studies - recent)
        self._unread = set(
            self._rng.choice(older, min(UNREAD, len(older) // 5), replace=False).tolist()
        )
        for first in range(0, self.studies, BATCH):
            batches: dict[str, Batch] = {}
            arrivals = received[first : first + BATCH]
            for n, at in enumerate(arrivals, first):
                for table, columns, rows in self._study(n, at):
                    batches.setdefault(table, (table, columns, []))[2].extend(rows)
            yield len(arrivals), list(batches.values())

    def _arrivals(self) -> list[datetime]:
        """Arrival times, as if it were 5 pm; the number of recent ones is the same at any size."""
        rng, recent = self._rng, min(RECENT, self.studies // 5)
        older = self.studies - recent
        hour = rng.choice(24, older, p=np.array(HOURS) / sum(HOURS)) + rng.random(older)
        ago_s = np.concatenate(
            [
                86400 * rng.integers(1, DAYS + 1, older) + 3600 * (17 - hour),
                rng.random(recent) * RECENT_S,
            ]
        )
        return [self._now - timedelta(seconds=ago) for ago in np.sort(ago_s)[::-1].tolist()]

    def _draw_patients(self) -> list[tuple[Any, ...]]:
        """The patients, half of them with a common name."""
        rng, count = self._rng, max(1, self.studies * 7 // 10)
        common, first_names = COMMON.split(), FIRST_NAMES.split()
        names = [*common, *(a + b for a in RARE_BEGINNINGS.split() for b in RARE_ENDINGS.split())]
        often = 1 / np.arange(3, len(common) + 3)
        rare = len(names) - len(common)
        family = rng.choice(
            len(names), count, p=np.concatenate([often / often.sum(), np.full(rare, 1 / rare)]) / 2
        )
        first = (len(first_names) * rng.random(count) ** 1.5).astype(int)
        return [
            (
                n + 1,
                "HOSPITAL",
                f"{10_000_000 + 7 * n}",
                f"{names[f]}^{first_names[g]}",
                f"{1930 + n % 70}{1 + n % 12:02}{1 + n % 28:02}",
                "MF"[n % 2],
            )
            for n, (f, g) in enumerate(zip(family.tolist(), first.tolist(), strict=True))
        ]

    def _study(self, n: int, at: datetime) -> Iterator[Batch]:
        """All rows of the ``n``-th study."""
        rng, newest = self._rng, self.studies - n
        stat, ending, again, long, unread, scanner = rng.random(6).tolist()
        reading = self._readings[int(rng.integers(len(self._readings)))]
        person = self._patients[int(rng.integers(len(self._patients)))]
        state, reason = _state(ending, newest)
        analysed = state == "analysed"
        study = _Study(
            n + 1,
            newest,
            state,
            stat < 0.03,
            2 if analysed and again < 0.031 else 1,
            at,
            at + timedelta(seconds=40 + 100 * long),
        )
        bundle = 1 if newest > 0.97 * self.studies else 2 if newest > self.studies / 3 else 3
        age = self._now - at
        expired = age.total_seconds() >= RECENT_S and n not in self._unread and n % 2 == 0
        read = unread > 0.85 if age.total_seconds() < RECENT_S else n not in self._unread
        read = read and not expired
        done, accession = _text(study.done_at), f"MR{at.year % 100}{n:08}"
        yield (
            "study",
            STUDY,
            [
                (
                    study.id,
                    person[0],
                    f"{ROOT}.2.{1_000_003 * n % 999_983}.{n}",
                    accession,
                    f"{at:%Y%m%d}",
                    "MR LWS nativ",
                    SCANNERS[int(scanner**1.3 * len(SCANNERS))],
                    study.stat,
                    state,
                    reason,
                    study.revision,
                    _text(at - timedelta(minutes=5)),
                    _text(at),
                    done if study.ended else None,
                    done if age.days > 30 else None,
                    analysed and any(row[2] == Severity.SEVERE for row in reading),
                    ("synthetic", "clinical")[bundle > 1] if analysed else None,
                    _text(at + min(age, timedelta(hours=2))) if read else None,
                    _text(at + min(age, timedelta(days=7))) if expired else None,
                    int(study.done_at.timestamp()) if study.ended else None,
                    int(study.done_at.timestamp()),
                )
            ],
        )
        patient = SimpleNamespace(patient_identifier=person[2], name=person[3])
        keys = keys_of(SimpleNamespace(id=study.id, accession_number=accession, patient=patient))  # type: ignore[arg-type]
        yield "search_key", ("word", "study_id"), [(key.word, study.id) for key in keys]
        if analysed:
            if study.revision == 2:
                yield self._findings_of(study, 1, bundle, self._readings[n % len(self._readings)])
            yield self._findings_of(study, study.revision, bundle, reading)
            if newest <= REVIEWED and newest % 20 == 0:
                k = n % len(reading)
                word = reading[k][2] if again < 0.9 else "moderate"
                yield (
                    "review",
                    REVIEW,
                    [(self._findings - 24 + k, "anna", word or "moderate", "", done)],
                )
        yield from self._jobs(study)
        yield from _images(study)

    def _findings_of(
        self, study: _Study, revision: int, bundle: int, reading: list[tuple[Any, ...]]
    ) -> Batch:
        at = _text(study.done_at - timedelta(minutes=9 * (study.revision - revision)))
        shared = (study.id, revision, revision < study.revision, at, bundle)
        first = self._findings + 1
        self._findings += len(reading)
        return (
            "finding",
            FINDING,
            [
                (k, *shared, f"{ROOT}.3.{study.id}.{k % 3}", MR, f"{ROOT}.4.{study.id}.{k}", *row)
                for k, row in enumerate(reading, first)
            ],
        )

    def _jobs(self, study: _Study) -> Iterator[Batch]:
        """A study's jobs; for the newest studies also report, delivery and explanations."""
        received, done = _text(study.received_at), _text(study.done_at)
        if study.state != "receiving":
            failure = "dead" if study.newest <= REPORTED else "cancelled"
            state = {"queued": "pending", "analysing": "running", "failed": failure}.get(
                study.state, "done"
            )
            error, ended = study.state if state == failure else None, done if study.ended else None
            values = (int(study.stat), state, received, 1, 0, error, received, ended)
            yield "job", JOB, [("analyse", "", study.id, study.revision, None, *values)]
        if not study.ended or study.newest > REPORTED:
            return
        self._reports += 1
        report, uid, key = self._reports, f"{ROOT}.5.{study.id}", f"{self._reports:064x}"
        yield (
            "report",
            REPORT,
            [(report, study.id, study.revision, SR, uid, f"{uid}.1", key, f"reports/{key}", done)],
        )
        state = (
            "dead" if study.newest % 500 == 0 else "pending" if study.newest % 300 == 0 else "done"
        )
        sent = _text(study.done_at + timedelta(seconds=3))
        values = (
            int(study.stat),
            state,
            sent,
            1,
            0,
            None if state == "done" else "0122",
            done,
            sent,
        )
        yield "job", JOB, [("deliver", "pacs", study.id, study.revision, report, *values)]
        if state == "done":
            yield (
                "delivery",
                ("report_id", "destination", "status", "delivered_at"),
                [(report, "pacs", "0000", sent)],
            )
        lines = [
            (study.id, study.revision, line, f"series {line}: read as sagittal T2", False)
            for line in range(8)
        ]
        if study.newest % 12 == 0:
            lines.append(
                (study.id, study.revision, 8, "the border to the sacrum looks transitional", True)
            )
        yield "explanation", ("study_id", "revision", "ordinal", "text", "caveat"), lines


def _images(study: _Study) -> Iterator[Batch]:
    for number, (role, images) in enumerate(
        {Role.SAGITTAL_T1: 16, Role.SAGITTAL_T2: 16, Role.AXIAL_T2: 30}.items(), 1
    ):
        series = 3 * study.id + number
        yield (
            "series",
            SERIES,
            [(series, study.id, f"{ROOT}.3.{study.id}.{number}", number, role.label)],
        )
        keys = [
            f"{series:056x}{k:08x}" for k in range(images if study.newest <= WITH_IMAGES else 0)
        ]
        yield (
            "instance",
            INSTANCE,
            [
                (
                    series,
                    f"{ROOT}.4.{series}.{k}",
                    MR,
                    IMPLICIT,
                    key,
                    300_000,
                    f"{key[-2:]}/{key}",
                    1,
                    role.value,
                    "MR1",
                    _text(study.received_at - timedelta(seconds=k)),
                )
                for k, key in enumerate(keys)
            ],
        )


def _state(chance: float, newest: int) -> tuple[str, str | None]:
    if newest <= 30:
        return ("receiving", "analysing", "queued")[min(2, newest // 4)], None
    if chance < 0.97:
        return "analysed", None
    return (
        ("failed", "SomeError")
        if chance < 0.985
        else ("not_analysable", "no lumbar spine was found")
    )


def _text(moment: datetime) -> str:
    """A time in UTC in a form that both databases accept."""
    return moment.astimezone(UTC).isoformat(" ", "microseconds")[:26]
