"""The REST API: what the pages show, for programs. Errors are problem+json (RFC 9457)."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Security
from fastapi.security import HTTPBearer
from pydantic import Field

from db import destination_actions, operator_actions, quarantine, reviews, studies
from db.models import OPEN_JOB_STATES, JobKind, JobState
from db.read_models import destinations, findings, statistics, study_queries, worklist
from db.read_models.findings import CURSOR_PATTERN
from db.read_models.study_detail import study_detail
from web.auth import Operator, Reviewer, TheAuditTrail, TheSite, Viewer
from web.params import (
    AnyRequestedStudies,
    Chosen,
    DestinationName,
    KnownParametersOnly,
    NoneIfEmpty,
    Number,
    QuarantineId,
    RequestedFindings,
    RequestedStudies,
)
from web.schemas import (
    BundleModel,
    CorrectRequest,
    DeliveryModel,
    DestinationModel,
    Done,
    FindingsPageModel,
    JobModel,
    JobsModel,
    QuarantinedModel,
    ReadRequest,
    RerouteRequest,
    ReviewModel,
    ReviewRequest,
    StudiesModel,
    StudyDetailModel,
    WaitingModel,
    correction_model,
    finding_model,
    findings_model,
    studies_model,
    study_model,
)

MAX_LIMIT = 500
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
        400: "The request cannot be parsed",
        401: "The request is not authenticated",
        403: "The token does not allow it",
        404: "It does not exist",
        409: "It is not possible in the present state",
        422: "A parameter or the body is not valid",
        503: "The database is unavailable; try again",
    }.items()
}
BEARER = HTTPBearer(
    auto_error=False, description="An administrator creates tokens on the page, under Users"
)
# The bearer token is declared here and checked in `web.auth`
router = APIRouter(
    prefix="/api/v1", responses=RESPONSES, dependencies=[Security(BEARER), KnownParametersOnly]
)

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Rows on a page")]
After = Annotated[str | None, Query(max_length=64, description="`next_after` of the page before")]
AfterFinding = Annotated[
    Annotated[str, Field(pattern=CURSOR_PATTERN)] | None,
    NoneIfEmpty,
    Query(description="`next_after` of the page before"),
]
Uid = Annotated[str, Path(max_length=64, description="Study Instance UID")]


@router.get(
    "/worklist", tags=["studies"], summary="The studies that wait to be read, the most urgent first"
)
def get_worklist(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: RequestedStudies,
    limit: Limit = 50,
    after: After = None,
) -> StudiesModel:
    trail.record_view("worklist.seen", actor.participant)
    with site.database.reading() as session:
        return studies_model(
            worklist.worklist(session, site.ranking, limit=limit, after=after, only=only)
        )


@router.get(
    "/worklist/counts", tags=["studies"], summary="How many studies wait, or have expired unread"
)
def get_worklist_counts(site: TheSite, actor: Viewer) -> WaitingModel:
    with site.database.reading() as session:
        return WaitingModel.model_validate(worklist.waiting(session, site.ranking))


@router.get("/studies", tags=["studies"], summary="All studies, the newest first")
def get_studies(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: AnyRequestedStudies,
    limit: Limit = 50,
    after: After = None,
) -> StudiesModel:
    trail.record_view("studies.seen", actor.participant)
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
        detail = study_detail(session, uid, site.ranking)
    trail.record_view("study.seen", actor.participant, study_id)
    return StudyDetailModel(
        study=study_model(detail.study),
        reason=detail.reason,
        findings=[finding_model(row) for row in detail.findings],
        reviews=[ReviewModel.model_validate(row.review) for row in detail.findings if row.review],
        caveats=list(detail.read.caveats),
        doubts=list(detail.read.caveats),
        choices=list(detail.read.choices),
        quarantined=detail.quarantined,
        set_aside=detail.quarantined,
        other_objects=detail.other_objects,
        corrections=[correction_model(correction) for correction in detail.corrections],
        disagreements=list(detail.disagreements),
        deliveries=[DeliveryModel.model_validate(row) for row in detail.deliveries],
    )


@router.put("/studies/{uid}/read", tags=["studies"], summary="Mark a study as read or unread")
def put_read(site: TheSite, actor: Reviewer, uid: Uid, body: ReadRequest) -> Done:
    with site.database.transaction() as session:
        study = studies.find(session, uid)
        reviews.mark_read(
            session,
            study,
            actor.participant,
            read=body.read,
            last_received_at=body.last_received_at,
        )
    return Done()


@router.post("/studies/{uid}/requeue", tags=["studies"], summary="Analyse an ended study again")
def post_requeue(site: TheSite, actor: Operator, uid: Uid) -> Done:
    with site.database.transaction() as session:
        operator_actions.requeue(session, uid, actor.participant)
    return Done()


@router.post(
    "/studies/{uid}/complete",
    tags=["studies"],
    summary="Analyse a study now, without waiting until it is quiet",
)
def post_complete(site: TheSite, actor: Operator, uid: Uid) -> Done:
    arriving = site.store.arriving()
    with site.database.transaction() as session:
        operator_actions.complete(session, uid, actor.participant, arriving)
    return Done()


@router.post(
    "/studies/{uid}/correct",
    tags=["studies"],
    summary="Take a study over as newer copies of all its images state it",
)
def post_correct(
    site: TheSite, actor: Operator, uid: Uid, body: CorrectRequest | None = None
) -> Done:
    token = body.correction if body else None
    with site.database.transaction() as session:
        operator_actions.correct(session, uid, actor.participant, token)
    return Done()


@router.get(
    "/studies/{uid}/quarantined",
    tags=["quarantine"],
    summary="What is quarantined of a study, the newest first",
)
def get_quarantined_of_study(
    site: TheSite, trail: TheAuditTrail, actor: Viewer, uid: Uid, limit: Limit = 50
) -> list[QuarantinedModel]:
    with site.database.reading() as session:
        study_id = studies.find(session, uid).id
    trail.record_view("study.seen", actor.participant, study_id)
    rows = quarantine.list_quarantined(site, uid, limit)
    return [QuarantinedModel.model_validate(row) for row in rows]


@router.get("/quarantined", tags=["quarantine"], summary="What is quarantined, the newest first")
def get_quarantined(
    site: TheSite, trail: TheAuditTrail, actor: Viewer, limit: Limit = 50
) -> list[QuarantinedModel]:
    trail.record_view("quarantine.seen", actor.participant)
    rows = quarantine.list_quarantined(site, limit=limit)
    return [QuarantinedModel.model_validate(row) for row in rows]


@router.post(
    "/quarantined/{instance}/release",
    tags=["quarantine"],
    summary="Use a quarantined instance after all, in place of the copy in use",
)
def post_release(site: TheSite, actor: Operator, instance: QuarantineId) -> Done:
    quarantine.release(site, instance, actor.participant)
    return Done()


@router.delete(
    "/quarantined/{instance}",
    tags=["quarantine"],
    summary="Delete a quarantined instance, its file included",
)
def delete_quarantined(site: TheSite, actor: Operator, instance: QuarantineId) -> Done:
    quarantine.drop(site, instance, actor.participant)
    return Done()


@router.get(
    "/findings",
    tags=["findings"],
    summary="Findings of all studies, the newest first",
    description="A study that ended without findings has 25 not assessed, for the study's reason.",
)
def get_findings(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Viewer,
    only: RequestedFindings,
    limit: Limit = 50,
    after: AfterFinding = None,
) -> FindingsPageModel:
    trail.record_view("findings.seen", actor.participant)
    with site.database.reading() as session:
        return findings_model(findings.page(session, only, limit=limit, after=after))


@router.post(
    "/findings/{finding_id}/reviews",
    tags=["findings"],
    summary="Review a finding",
    status_code=201,
)
def post_review(site: TheSite, actor: Reviewer, finding_id: Number, body: ReviewRequest) -> Done:
    with site.database.transaction() as session:
        reviews.add_review(session, finding_id, body.severity, body.comment, actor.participant)
    return Done()


@router.get("/jobs", tags=["jobs"], summary="Jobs in the order in which workers claim them")
def get_jobs(
    site: TheSite,
    trail: TheAuditTrail,
    actor: Operator,
    state: Annotated[list[JobState] | None, Chosen, Query()] = None,
    kind: Annotated[list[JobKind] | None, Chosen, Query()] = None,
    limit: Limit = 50,
) -> list[JobModel]:
    trail.record_visit("jobs.seen", actor.participant)
    with site.database.reading() as session:
        rows = operator_actions.list_jobs(
            session, states=state or OPEN_JOB_STATES, kinds=kind or (), limit=limit
        )
    return [JobModel.model_validate(row) for row in rows]


@router.post("/jobs/{job}/retry", tags=["jobs"], summary="Run a pending or dead job now")
def post_retry(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        operator_actions.retry(session, job, actor.participant)
    return Done()


@router.post("/jobs/{job}/cancel", tags=["jobs"], summary="Cancel a job that has not ended")
def post_cancel(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        operator_actions.cancel(session, job, actor.participant)
    return Done()


@router.post("/jobs/{job}/resend", tags=["jobs"], summary="Deliver a report again")
def post_resend(site: TheSite, actor: Operator, job: Number) -> Done:
    with site.database.transaction() as session:
        operator_actions.resend(session, job, actor.participant)
    return Done()


@router.get("/destinations", tags=["jobs"], summary="What waits for each destination")
def get_destinations(
    site: TheSite, trail: TheAuditTrail, actor: Operator
) -> list[DestinationModel]:
    trail.record_visit("system.seen", actor.participant)
    with site.database.reading() as session:
        rows = destinations.destinations(session, site.settings.destinations)
    return [DestinationModel.model_validate(row) for row in rows]


@router.post(
    "/destinations/{name:path}/retry",
    tags=["jobs"],
    summary="Run a destination's waiting and dead jobs now",
)
def post_retry_destination(site: TheSite, actor: Operator, name: DestinationName) -> JobsModel:
    with site.database.transaction() as session:
        return JobsModel(jobs=destination_actions.retry_all(session, name, actor.participant))


@router.post(
    "/destinations/{name:path}/cancel",
    tags=["jobs"],
    summary="Cancel a destination's waiting and dead jobs",
)
def post_cancel_destination(site: TheSite, actor: Operator, name: DestinationName) -> JobsModel:
    with site.database.transaction() as session:
        return JobsModel(jobs=destination_actions.cancel_all(session, name, actor.participant))


@router.post(
    "/destinations/{name:path}/reroute",
    tags=["jobs"],
    summary="Send a destination's waiting and dead jobs to another",
)
def post_reroute(
    site: TheSite, actor: Operator, name: DestinationName, request: RerouteRequest
) -> JobsModel:
    site.settings.destination(request.to)
    with site.database.transaction() as session:
        return JobsModel(
            jobs=destination_actions.reroute(session, name, request.to, actor.participant)
        )


@router.get("/studies/{uid}/deliveries", tags=["jobs"], summary="What became of a study's reports")
def get_deliveries(
    site: TheSite, trail: TheAuditTrail, actor: Viewer, uid: Uid
) -> list[DeliveryModel]:
    with site.database.reading() as session:
        study_id = studies.find(session, uid).id
        rows = study_queries.deliveries(session, study_id)
    trail.record_view("study.seen", actor.participant, study_id)
    return [DeliveryModel.model_validate(row) for row in rows]


@router.get("/bundles", tags=["bundles"], summary="All weights that made a finding")
def get_bundles(site: TheSite, actor: Viewer) -> list[BundleModel]:
    with site.database.reading() as session:
        return [BundleModel.model_validate(bundle) for bundle in statistics.bundles(session)]
