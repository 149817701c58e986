"""The REST API: what the pages show, for programs. Errors are problem+json (RFC 9457)."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Security
from fastapi.security import HTTPBearer

from db import operator_actions, reviews, studies
from db.models import JobKind, JobState
from db.read_models import findings, statistics, worklist
from db.read_models import study_queries as asked
from db.read_models.findings import FindingFilter
from db.read_models.study_detail import study_detail
from lumbar.spine.anatomy import Condition, Level, Severity
from web.auth import Operator, Reviewer, TheAuditTrail, TheSite, Viewer
from web.params import LARGEST, Moment, Number, OfStudies
from web.schemas import (
    BundleModel,
    DeliveryModel,
    Done,
    FindingModel,
    FoundPageModel,
    JobModel,
    ReadRequest,
    ReviewModel,
    ReviewRequest,
    StudiesModel,
    StudyDetailModel,
    finding_values,
    found_model,
    studies_model,
    study_model,
)

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
        400: "The request cannot be read",
        401: "Nobody is signed in",
        403: "The token does not allow it",
        404: "There is no such thing",
        409: "It cannot be done as things stand",
        422: "The request is not understood",
        503: "The database is away; try again",
    }.items()
}
BEARER = HTTPBearer(
    auto_error=False, description="An administrator makes tokens on the page, under Users"
)
router = APIRouter(
    prefix="/api/v1", responses=RESPONSES, dependencies=[Security(BEARER)]
)  # looked at in `web.auth`

Limit = Annotated[int, Query(ge=1, le=MOST, description="Rows on a page")]
After = Annotated[str | None, Query(max_length=64, description="`next_after` of the page before")]
AfterNumber = Annotated[
    int | None, Query(ge=1, le=LARGEST, description="`next_after` of the page before")
]
Uid = Annotated[str, Path(max_length=64, description="Study Instance UID")]
Scanner = Annotated[str, Query(max_length=64)]
Since = Annotated[
    datetime | None, Moment, Query(description="Then or later; UTC where no zone is given")
]


@router.get(
    "/worklist", tags=["studies"], summary="The studies that wait to be read, the most urgent first"
)
def get_worklist(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: OfStudies,
    limit: Limit = 50,
    after: After = None,
) -> StudiesModel:
    trail.record_view("worklist.seen", actor.name)
    with site.database.reading() as session:
        return studies_model(
            worklist.worklist(session, site.ranking, limit=limit, after=after, only=only)
        )


@router.get("/studies", tags=["studies"], summary="All studies, the newest first")
def get_studies(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: OfStudies,
    limit: Limit = 50,
    after: After = None,
) -> StudiesModel:
    trail.record_view("studies.seen", actor.name)
    with site.database.reading() as session:
        return studies_model(
            worklist.studies(session, site.ranking, limit=limit, after=after, only=only)
        )


@router.get(
    "/studies/{uid}",
    tags=["studies"],
    summary="One study with its findings, reviews and deliveries",
)
def get_study(site: TheSite, trail: TheAuditTrail, actor: Viewer, uid: Uid) -> StudyDetailModel:
    with site.database.reading() as session:
        study_id = studies.find(session, uid).id
        told = study_detail(session, uid, site.ranking)
    trail.record_view("study.seen", actor.name, study_id)
    return StudyDetailModel(
        study=study_model(told.study),
        reason=told.reason,
        findings=[
            FindingModel(finding_id=cell.finding_id, **finding_values(cell.finding))
            for cell in told.cells
        ],
        reviews=[ReviewModel.model_validate(cell.said) for cell in told.cells if cell.said],
        caveats=list(told.read.caveats),
        choices=list(told.read.choices),
        quarantined=told.quarantined,
        deliveries=[DeliveryModel.model_validate(row) for row in told.deliveries],
    )


@router.put("/studies/{uid}/read", tags=["studies"], summary="Mark a study as read, or not")
def put_read(site: TheSite, actor: Reviewer, uid: Uid, body: ReadRequest) -> Done:
    with site.database.transaction() as session:
        study = studies.find(session, uid)
        reviews.mark_read(
            session, study, actor.name, read=body.read, last_received_at=body.last_received_at
        )
    return Done()


@router.post(
    "/studies/{uid}/requeue", tags=["studies"], summary="Analyse a study again that has ended"
)
def post_requeue(site: TheSite, actor: Operator, uid: Uid) -> Done:
    with site.database.transaction() as session:
        operator_actions.requeue(session, uid, actor.name)
    return Done()


@router.post(
    "/studies/{uid}/complete",
    tags=["studies"],
    summary="Analyse a study now, without waiting for quiet",
)
def post_complete(site: TheSite, actor: Operator, uid: Uid) -> Done:
    with site.database.transaction() as session:
        operator_actions.complete(session, uid, actor.name)
    return Done()


@router.get("/findings", tags=["findings"], summary="Findings of all studies, the newest first")
def get_findings(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    severity: Annotated[list[Severity] | None, Query()] = None,
    condition: Annotated[list[Condition] | None, Query()] = None,
    level: Annotated[list[Level] | None, Query()] = None,
    scanner: Scanner = "",
    since: Since = None,
    limit: Limit = 50,
    after: AfterNumber = None,
) -> FoundPageModel:
    trail.record_view("findings.seen", actor.name)
    only = FindingFilter(severity or (), condition or (), level or (), scanner, since)
    with site.database.reading() as session:
        page = findings.found(session, only, limit=limit, after=after)
    return FoundPageModel(rows=[found_model(row) for row in page.rows], next_after=page.next_after)


@router.post(
    "/findings/{finding_id}/reviews",
    tags=["findings"],
    summary="Say what a finding really is",
    status_code=201,
)
def post_review(site: TheSite, actor: Reviewer, finding_id: Number, body: ReviewRequest) -> Done:
    with site.database.transaction() as session:
        reviews.add_review(session, finding_id, body.severity, body.comment, actor.name)
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
        rows = operator_actions.list_jobs(session, states=states, kinds=kind or (), limit=limit)
    return [JobModel.model_validate(row) for row in rows]


@router.post("/jobs/{job}/retry", tags=["jobs"], summary="Try a waiting or dead job now")
def post_retry(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        operator_actions.retry(session, job, actor.name)
    return Done()


@router.post("/jobs/{job}/cancel", tags=["jobs"], summary="Give a job up that has not ended")
def post_cancel(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        operator_actions.cancel(session, job, actor.name)
    return Done()


@router.post("/jobs/{job}/resend", tags=["jobs"], summary="Deliver a report again")
def post_resend(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        operator_actions.resend(session, job, actor.name)
    return Done()


@router.get("/studies/{uid}/deliveries", tags=["jobs"], summary="What became of a study's reports")
def get_deliveries(
    site: TheSite, trail: TheAuditTrail, actor: Viewer, uid: Uid
) -> list[DeliveryModel]:
    with site.database.reading() as session:
        study_id = studies.find(session, uid).id
        rows = asked.deliveries(session, study_id)
    trail.record_view("study.seen", actor.name, study_id)
    return [DeliveryModel.model_validate(row) for row in rows]


@router.get("/bundles", tags=["bundles"], summary="All weights that made a finding")
def get_bundles(site: TheSite, actor: Viewer) -> list[BundleModel]:
    with site.database.reading() as session:
        return [BundleModel.model_validate(bundle) for bundle in statistics.bundles(session)]
