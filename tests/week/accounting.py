"""Accounting after the week: what was sent, against what archives and worklist have."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.week.run import KEEP_DAYS, WORKLIST_DAYS, Hospital
from tests.week.servers import StoredReport

MAINTENANCE_S = 60.0  # between two rounds of retention
CLOCK_DAYS = 1.0  # by which a time may be wrong, as the clocks were
RESTORING_S = 30.0  # until images are registered again in a restored database
MIB = 2**20


@dataclass(frozen=True)
class Check:
    """One rule: how many things were looked at, and which of them violate it."""

    rule: str
    counted: int
    violations: tuple[str, ...]


def account(hospital: Hospital) -> list[Check]:
    """Every rule, of a hospital that still runs."""
    reports = {name: archive.reports() for name, archive in hospital.archives.items()}
    return [
        _sent(hospital),
        _lost(hospital, reports),
        _wrong_patient(hospital, reports),
        _dead(hospital),
        _same_bytes(hospital, reports),
        _one_current(reports),
        _disk(hospital),
        _listed(hospital),
        _expired(hospital),
        _outlived(hospital),
    ]


def current(reports: Iterable[StoredReport]) -> dict[str, list[StoredReport]]:
    """Study → its reports that no other one names as its predecessor."""
    reports = list(reports)
    replaced = {uid for report in reports for uid in report.predecessors}
    studies: dict[str, list[StoredReport]] = {report.study: [] for report in reports}
    for report in reports:
        if report.uid not in replaced:
            studies[report.study].append(report)
    return studies


def _sent(hospital: Hospital) -> Check:
    missing = [study.uid for study in hospital.studies if not study.complete.is_set()]
    return Check("acknowledged in the end", len(hospital.studies), tuple(missing))


def _lost(hospital: Hospital, reports: dict[str, list[StoredReport]]) -> Check:
    lost = []
    for name, stored in reports.items():
        of_study = current(stored)
        for study in hospital.studies:
            found = [report.images for report in of_study.get(study.uid, [])]
            if study.images not in found:
                wrong = f"of {'other images' if found else 'nothing'}"
                lost.append(f"{study.uid} ({study.plan.kind}) at {name}: a report {wrong}")
    return Check("0 studies lost: a report of all images", 2 * len(hospital.studies), tuple(lost))


def _wrong_patient(hospital: Hospital, reports: dict[str, list[StoredReport]]) -> Check:
    wrong, studies = [], {study.uid: study for study in hospital.studies}
    for name, stored in reports.items():
        newest = {report.uid for of_study in current(stored).values() for report in of_study}
        for report in stored:
            study = studies.get(report.study)
            patients = study.patients[-1:] if study and report.uid in newest else []
            if study and report.uid not in newest:
                patients = study.patients
            if report.patient not in patients:
                wrong.append(f"{report.uid} at {name}")
    counted = sum(map(len, reports.values()))
    return Check("0 reports under a wrong patient", counted, tuple(wrong))


def _dead(hospital: Hospital) -> Check:
    dead = hospital.jobs("dead")
    words = [f"{job['kind']} {job['destination']} of {job['study_instance_uid']}" for job in dead]
    return Check("0 dead jobs", len(hospital.jobs("done", "cancelled")), tuple(words))


def _same_bytes(hospital: Hospital, reports: dict[str, list[StoredReport]]) -> Check:
    """Within an archive by all that it ever stored, between archives by what they have now."""
    several, contents = [], {}
    for name, archive in hospital.archives.items():
        stored = archive.stored
        several += [f"{uid} at {name}" for uid, found in stored.items() if len(found) > 1]
        for report in reports[name]:
            if contents.setdefault(report.uid, report.content) != report.content:
                several.append(f"{report.uid} at {name} and elsewhere")
    return Check("0 two contents under one UID", len(contents), tuple(several))


def _one_current(reports: dict[str, list[StoredReport]]) -> Check:
    several, counted = [], 0
    for name, stored in reports.items():
        for study, newest in current(stored).items():
            counted += 1
            if len(newest) != 1:
                several.append(f"{study} at {name}: {len(newest)}")
    return Check("one current report per study", counted, tuple(several))


def _disk(hospital: Hospital) -> Check:
    """In the end the store holds no more images than may still be kept; nobody has clicked."""
    now, size = hospital.happened.store_mib[-1]
    kept = max(WORKLIST_DAYS, KEEP_DAYS) + CLOCK_DAYS + 2 * MAINTENANCE_S / hospital.day_s
    older = hospital.ended_before(now - kept)
    sizes = sum(study.size for study in hospital.studies if study not in older)
    bound = 1.1 * sizes / MIB + 0.1
    too_large = (f"{size:.1f} MiB, more than {bound:.1f} MiB",) if size > bound else ()
    return Check("disk bounded, in the end", len(older), too_large)


def _listed(hospital: Hospital) -> Check:
    """Nobody has read anything: on each day, what has not expired is listed."""
    missing, counted = [], 0
    for day, listed in hospital.happened.worklists:
        if 0 < day - hospital.happened.restored_on < RESTORING_S / hospital.day_s:
            continue
        for study in hospital.studies:
            waits_for = day - hospital.day_of(study.images_at)
            if study.images_at and 0 < waits_for < WORKLIST_DAYS - CLOCK_DAYS:
                counted += 1
                if study.uid not in listed:
                    missing.append(f"{study.uid} ({study.plan.kind}) on day {day:.1f}")
    return Check("the worklist holds what waits", counted, tuple(missing))


def _expired(hospital: Hospital) -> Check:
    """In the end, what has expired is not listed, or said to have."""
    now, listed = hospital.happened.worklists[-1]
    expired = [study.uid for study in hospital.ended_before(now - WORKLIST_DAYS - CLOCK_DAYS)]
    wrong = [uid for uid in expired if uid in listed and "expired" not in listed[uid]]
    return Check("the worklist says what has expired", len(expired), tuple(wrong))


def _outlived(hospital: Hospital) -> Check:
    ended = hospital.happened.ended_by_itself
    words = [what for _, what in hospital.happened.events if "by itself" in what]
    return Check("the system outlives every fault", len(hospital.week.faults), tuple(words[:ended]))
