"""The REST API: what the pages show, for programs. Errors are problem+json (RFC 9457)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from db import by_hand, found, overview, reviews, studies, worklist
from db import queries as asked
from db.found import FindingFilter, FoundRow
from db.story import story
from db.tables import JobKind, JobState, StudyState
from db.worklist import StudyFilter, StudyPage, WorklistRow
from lumbar.spine.anatomy import Condition, FindingKey, Level, Severity
from lumbar.spine.findings import Finding
from lumbar.spine.provenance import CLEARS_NOBODY, RESEARCH_USE_ONLY
from web.access import Operator, Reviewer, TheSite, TheTrail, Viewer

MOST = 500
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": words,
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                }
            }
        },
    }
    for status, words in {
        401: "Nobody is signed in",
        403: "The token does not allow it",
        404: "There is no such thing",
        409: "It cannot be done as things stand",
        422: "The request is not understood",
        503: "The database is away; try again",
    }.items()
}
router = APIRouter(prefix="/api/v1", responses=RESPONSES)

Limit = Annotated[int, Query(ge=1, le=MOST, description="Rows on a page")]
After = Annotated[str | None, Query(max_length=64, description="`next_after` of the page before")]
AfterNumber = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="`next_after` of the page before")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Uid = Annotated[str, Path(max_length=64, description="Study Instance UID")]
Search = Annotated[
    str, Query(max_length=200, description="Beginnings of name, patient's or accession number, or a UID")
]
Scanner = Annotated[str, Query(max_length=64)]
Since = Annotated[datetime | None, Query(description="Then or later; UTC where no zone is given")]


class _Model(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class BundleModel(_Model):
    """Which weights."""

    name: str
    version: str
    weights_sha256: str
    trained_on: str
    preprocessing_version: str


class KeyModel(_Model):
    condition: Condition
    level: Level


class StudyModel(_Model):
    """A study as the worklist shows it."""

    study_instance_uid: str
    urgency: int = Field(description="1 first, 2 soon, 3 in turn")
    why: str
    patient_identifier: str
    patient_name: str
    accession_number: str
    study_date: str
    description: str
    scanner: str
    state: StudyState
    revision: int
    stat: bool
    images: int
    severe: list[KeyModel]
    moderate: list[KeyModel]
    flags: list[str]
    waiting_s: float
    last_received_at: datetime
    read_at: datetime | None
    bundle: BundleModel | None
    notice: str


class StudiesModel(_Model):
    rows: list[StudyModel]
    next_after: str | None


class ProbabilitiesModel(_Model):
    normal_mild: float
    moderate: float
    severe: float


class PlaceModel(_Model):
    """Where it was read: 0-based pixels, integers at pixel centres, and mm in LPS."""

    series_instance_uid: str
    sop_instance_uid: str
    frame: int | None
    column: float
    row: float
    x: float
    y: float
    z: float


class FindingModel(_Model):
    """One condition at one level."""

    finding_id: int | None
    condition: Condition
    level: Level
    severity: Severity | None
    probabilities: ProbabilitiesModel | None
    shows: float | None
    reason: str | None
    place: PlaceModel | None


class FoundModel(FindingModel):
    study_instance_uid: str
    accession_number: str
    patient_identifier: str
    scanner: str
    found_at: datetime
    bundle: BundleModel
    notice: str


class FoundPageModel(_Model):
    rows: list[FoundModel]
    next_after: int | None


class ReviewModel(_Model):
    """The last word on a finding."""

    finding_id: int
    severity: Severity
    agrees: bool
    reviewer: str
    comment: str
    reviewed_at: datetime


class DeliveryModel(_Model):
    job: int
    destination: str
    sop_instance_uid: str
    revision: int
    state: JobState
    status: str | None
    attempts: int
    last_error: str | None
    delivered_at: datetime | None


class StoryModel(_Model):
    """A study with everything that is known of it."""

    study: StudyModel
    reason: str | None
    findings: list[FindingModel]
    reviews: list[ReviewModel]
    doubts: list[str]
    choices: list[str]
    set_aside: dict[str, int]
    deliveries: list[DeliveryModel]


class JobModel(_Model):
    job: int
    kind: JobKind
    study_instance_uid: str
    revision: int
    destination: str
    priority: int
    state: JobState
    attempts: int
    losses: int
    run_after: datetime
    last_error: str | None


class ReviewRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    severity: Severity
    comment: str = Field("", max_length=2000)


class ReadRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    read: bool = True


class Done(BaseModel):
    """What was asked for is done."""

    done: bool = True


@router.get("/worklist", tags=["studies"], summary="The studies that wait to be read, the most urgent first")
def get_worklist(
    site: TheSite,
    trail: TheTrail,
    actor: Viewer,
    q: Search = "",
    state: Annotated[list[StudyState] | None, Query()] = None,
    scanner: Scanner = "",
    since: Since = None,
    limit: Limit = 50,
    after: After = None,
) -> StudiesModel:
    trail.saw("worklist.seen", actor.name)
    with site.database.reading() as session:
        only = StudyFilter(q, state or (), scanner, since)
        return _studies(worklist.worklist(session, site.ranking, limit=limit, after=after, only=only))


@router.get("/studies", tags=["studies"], summary="All studies, the newest first")
def get_studies(
    site: TheSite,
    trail: TheTrail,
    actor: Viewer,
    q: Search = "",
    state: Annotated[list[StudyState] | None, Query()] = None,
    scanner: Scanner = "",
    since: Since = None,
    limit: Limit = 50,
    after: After = None,
) -> StudiesModel:
    trail.saw("studies.seen", actor.name)
    with site.database.reading() as session:
        only = StudyFilter(q, state or (), scanner, since)
        return _studies(worklist.studies(session, site.ranking, limit=limit, after=after, only=only))


@router.get("/studies/{uid}", tags=["studies"], summary="One study with its findings, reviews and deliveries")
def get_study(site: TheSite, trail: TheTrail, actor: Viewer, uid: Uid) -> StoryModel:
    with site.database.reading() as session:
        study_id = studies.find(session, uid).id
        told = story(session, uid, site.ranking)
    trail.saw("study.seen", actor.name, study_id)
    return StoryModel(
        study=_study(told.study),
        reason=told.reason,
        findings=[FindingModel(finding_id=cell.finding_id, **_finding(cell.finding)) for cell in told.cells],
        reviews=[ReviewModel.model_validate(cell.said) for cell in told.cells if cell.said],
        doubts=list(told.read.doubts),
        choices=list(told.read.choices),
        set_aside=told.set_aside,
        deliveries=[DeliveryModel.model_validate(row) for row in told.deliveries],
    )


@router.put("/studies/{uid}/read", tags=["studies"], summary="Mark a study as read, or not")
def put_read(site: TheSite, actor: Reviewer, uid: Uid, body: ReadRequest) -> Done:
    with site.database.transaction() as session:
        reviews.mark_read(session, studies.find(session, uid), actor.name, read=body.read)
    return Done()


@router.post("/studies/{uid}/requeue", tags=["studies"], summary="Analyse a study again that has ended")
def post_requeue(site: TheSite, actor: Operator, uid: Uid) -> Done:
    with site.database.transaction() as session:
        by_hand.requeue(session, uid, actor.name)
    return Done()


@router.post("/studies/{uid}/complete", tags=["studies"], summary="Analyse a study now, without waiting for quiet")
def post_complete(site: TheSite, actor: Operator, uid: Uid) -> Done:
    with site.database.transaction() as session:
        by_hand.complete(session, uid, actor.name)
    return Done()


@router.get("/findings", tags=["findings"], summary="Findings of all studies, the newest first")
def get_findings(
    site: TheSite,
    trail: TheTrail,
    actor: Viewer,
    severity: Annotated[list[Severity] | None, Query()] = None,
    condition: Annotated[list[Condition] | None, Query()] = None,
    level: Annotated[list[Level] | None, Query()] = None,
    scanner: Scanner = "",
    since: Since = None,
    limit: Limit = 50,
    after: AfterNumber = None,
) -> FoundPageModel:
    trail.saw("findings.seen", actor.name)
    only = FindingFilter(severity or (), condition or (), level or (), scanner, since)
    with site.database.reading() as session:
        page = found.found(session, only, limit=limit, after=after)
    return FoundPageModel(rows=[_found(row) for row in page.rows], next_after=page.next_after)


@router.post(
    "/findings/{finding_id}/reviews", tags=["findings"], summary="Say what a finding really is", status_code=201
)
def post_review(site: TheSite, actor: Reviewer, finding_id: Number, body: ReviewRequest) -> Done:
    with site.database.transaction() as session:
        reviews.review(session, finding_id, body.severity, body.comment, actor.name)
    return Done()


@router.get("/jobs", tags=["jobs"], summary="Jobs in the order in which they are taken")
def get_jobs(
    site: TheSite,
    actor: Operator,
    state: Annotated[list[JobState] | None, Query()] = None,
    kind: Annotated[list[JobKind] | None, Query()] = None,
    limit: Limit = 50,
) -> list[JobModel]:
    states = state or [JobState.PENDING, JobState.RUNNING, JobState.DEAD]
    with site.database.reading() as session:
        rows = by_hand.listed(session, states=states, kinds=kind or (), limit=limit)
    return [JobModel.model_validate(row) for row in rows]


@router.post("/jobs/{job}/retry", tags=["jobs"], summary="Try a waiting or dead job now")
def post_retry(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        by_hand.retry(session, job, actor.name)
    return Done()


@router.post("/jobs/{job}/cancel", tags=["jobs"], summary="Give a job up that has not ended")
def post_cancel(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        by_hand.cancel(session, job, actor.name)
    return Done()


@router.post("/jobs/{job}/resend", tags=["jobs"], summary="Deliver a report again")
def post_resend(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        by_hand.resend(session, job, actor.name)
    return Done()


@router.get("/studies/{uid}/deliveries", tags=["jobs"], summary="What became of a study's reports")
def get_deliveries(site: TheSite, actor: Viewer, uid: Uid) -> list[DeliveryModel]:
    with site.database.reading() as session:
        rows = asked.deliveries(session, studies.find(session, uid).id)
    return [DeliveryModel.model_validate(row) for row in rows]


@router.get("/bundles", tags=["bundles"], summary="All weights that made a finding")
def get_bundles(site: TheSite, actor: Viewer) -> list[BundleModel]:
    with site.database.reading() as session:
        return [BundleModel.model_validate(bundle) for bundle in overview.bundles(session)]


def _studies(page: StudyPage) -> StudiesModel:
    return StudiesModel(rows=[_study(row) for row in page.rows], next_after=page.next_after)


def _study(row: WorklistRow) -> StudyModel:
    own = {name: getattr(row, name) for name in StudyModel.model_fields if hasattr(row, name)}
    notices = row.bundle.trained_on.notices if row.bundle else (RESEARCH_USE_ONLY, CLEARS_NOBODY)
    return StudyModel(
        **own
        | {
            "urgency": int(row.urgency),
            "severe": _keys(row.severe),
            "moderate": _keys(row.moderate),
            "flags": list(row.flags),
            "bundle": BundleModel.model_validate(row.bundle) if row.bundle else None,
            "notice": ". ".join(notices),
        }
    )


def _keys(keys: Sequence[FindingKey]) -> list[KeyModel]:
    return [KeyModel.model_validate(key) for key in keys]


def _finding(finding: Finding) -> dict[str, Any]:
    probabilities = finding.probabilities
    return {
        "condition": finding.condition,
        "level": finding.level,
        "severity": finding.severity,
        "probabilities": ProbabilitiesModel(
            normal_mild=probabilities[0], moderate=probabilities[1], severe=probabilities[2]
        )
        if probabilities
        else None,
        "shows": finding.shows,
        "reason": finding.reason,
        "place": PlaceModel.model_validate(finding.place) if finding.place else None,
    }


def _found(row: FoundRow) -> FoundModel:
    return FoundModel(
        finding_id=row.finding_id,
        study_instance_uid=row.study_instance_uid,
        accession_number=row.accession_number,
        patient_identifier=row.patient_identifier,
        scanner=row.scanner,
        found_at=row.found_at,
        bundle=BundleModel.model_validate(row.bundle),
        notice=". ".join(row.bundle.trained_on.notices),
        **_finding(row.finding),
    )
