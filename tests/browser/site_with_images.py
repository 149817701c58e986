"""A site with a severe phantom study, findings on its slices, and small studies in other states."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom import dcmread

from commands.demo import MIXTURE
from db import job_lifecycle, studies
from db.context import SiteContext
from db.ingest import ingest
from db.studies import StudyEvent
from lumbar.dicom.headers import read_header, slice_headers
from lumbar.phantoms import PhantomTruth, write_study
from lumbar.spine.anatomy import ALL_FINDINGS, Condition, FindingKey, Level, Role, Severity
from lumbar.spine.findings import Finding, ImagePoint
from lumbar.spine.provenance import BundleIdentity, TrainedOn
from lumbar.spine.slices import SliceHeader
from tests.factories.instances import ROOT, arrival, make_slice
from tests.factories.quarantine import send, send_corrected
from tests.integration.site_with_studies import stored_report

BUNDLE = BundleIdentity("phantom", "1", "ab" * 32, TrainedOn.SYNTHETIC, "1")
CANAL = FindingKey(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
RECESS = FindingKey(Condition.LEFT_SUBARTICULAR_STENOSIS, Level.L3_L4)
FAILED, NORMAL, ARRIVING = (f"{ROOT}.{number}" for number in (2, 3, 4))
CORRECTED = f"{ROOT}.6"
LATE_STUDY = 5  # number of a study that arrives while the page is open

_PROBABILITIES = {
    Severity.NORMAL_MILD: (0.9, 0.08, 0.02),
    Severity.MODERATE: (0.1, 0.8, 0.1),
    Severity.SEVERE: (0.02, 0.08, 0.9),
}
_ROLE_OF = {
    Condition.SPINAL_CANAL_STENOSIS: Role.SAGITTAL_T2,
    Condition.LEFT_NEURAL_FORAMINAL_NARROWING: Role.SAGITTAL_T1,
    Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: Role.SAGITTAL_T1,
    Condition.LEFT_SUBARTICULAR_STENOSIS: Role.AXIAL_T2,
    Condition.RIGHT_SUBARTICULAR_STENOSIS: Role.AXIAL_T2,
}


def add_studies(site: SiteContext, folder: Path) -> str:
    """Adds the studies; returns the severe phantom's Study Instance UID."""
    truth = write_study(folder, seed=3, severities=MIXTURE[2])
    for file in sorted(folder.rglob("*.dcm")):
        ingest(site.database, site.store, arrival(dcmread(file)))
    _analyse(site, truth.study_instance_uid, truth.severities, _points(folder, truth))
    for number, name in ((2, "Failed^Fay"), (3, "Normal^Nora"), (4, "Arriving^Ari")):
        ingest(site.database, site.store, arrival(make_slice(study=number, PatientName=name)))
    send_corrected(site.database, site.store, 6, again=1)
    send(site.database, site.store, study=6, number=2, fill=99)
    _fail(site, FAILED)
    _analyse(site, NORMAL, dict.fromkeys(ALL_FINDINGS, Severity.NORMAL_MILD), {})
    return truth.study_instance_uid


def _analyse(
    site: SiteContext,
    uid: str,
    severities: Mapping[FindingKey, Severity],
    points: Mapping[FindingKey, ImagePoint],
) -> None:
    somewhere = ImagePoint("1.2", "1.3", "1.4", None, 1, 1, 0, 0, 0)
    findings = [
        Finding(
            *key.parts,
            probabilities=_PROBABILITIES[severities[key]],
            point=points.get(key, somewhere),
            shows=0.9,
        )
        for key in ALL_FINDINGS
    ]
    with site.database.transaction() as session:
        study = studies.find(session, uid)
        studies.complete(session, study.id)
        claimed = job_lifecycle.claim_analysis(session, lease_s=60)
        results = {"notes": ["the canal was followed"], "bundle": BUNDLE, "findings": findings}
        job_lifecycle.end_analysis(
            session,
            claimed,
            StudyEvent.ANALYSED,
            **results,
            report=stored_report(site, study.id, 1),
            destinations=["pacs"],
        )


def _fail(site: SiteContext, uid: str) -> None:
    with site.database.transaction() as session:
        studies.complete(session, studies.find(session, uid).id)
        job_lifecycle.dead_letter(
            session, job_lifecycle.claim_analysis(session, lease_s=60), "the disk is full"
        )


def _points(folder: Path, truth: PhantomTruth) -> dict[FindingKey, ImagePoint]:
    """Each finding's point, on the nearest slice of the series on which the finding is read."""
    series = {role: uid for uid, role in truth.series}
    slices = [
        header
        for file in sorted(folder.rglob("*.dcm"))
        for header in slice_headers(read_header(file))
    ]
    return {
        key: _on_nearest_slice(
            truth.points[key],
            [s for s in slices if s.series_instance_uid == series[_ROLE_OF[key.condition]]],
        )
        for key in ALL_FINDINGS
    }


def _on_nearest_slice(point: tuple[float, float, float], slices: list[SliceHeader]) -> ImagePoint:
    point_mm = np.array(point)
    nearest = min(
        slices, key=lambda header: (math.fabs(header.distance(point_mm)), header.sop_instance_uid)
    )
    column, row = nearest.to_pixel(point_mm)
    return ImagePoint(
        nearest.series_instance_uid,
        nearest.sop_class_uid,
        nearest.sop_instance_uid,
        None,
        column,
        row,
        *point,
    )
