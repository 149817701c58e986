"""The pages' actions on findings, studies, jobs and users; each one redirects to a page."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from db import (
    accounts,
    api_tokens,
    deletion,
    destination_actions,
    operator_actions,
    quarantine,
    reviews,
    studies,
)
from db.actors import Actor
from db.models import Permission, UserRole
from db.passwords import PasswordHash, new_hash
from lumbar.errors import LumbarError, NotFound, Permanent
from lumbar.peers import Peer
from lumbar.spine.anatomy import Severity
from web.auth import Admin, Operator, Reviewer, TheAuditTrail, TheSite, UserAdmin
from web.params import DestinationName, LastReceived, Number, QuarantineId, Words
from web.password_queue import queue_of
from web.rendering import page

router = APIRouter(include_in_schema=False)


def _redirect(path: str, done: str, **query: str) -> Response:
    """Redirects to a page that confirms what was done (``web.rendering.CONFIRMATIONS``)."""
    return RedirectResponse(f"{path}?{urlencode(query | {'done': done})}", 303)


@router.post("/studies/{uid}/findings/{finding_id}/review")
def review(
    site: TheSite,
    actor: Reviewer,
    uid: str,
    finding_id: Number,
    severity: Annotated[Severity, Form()],
    comment: Words = "",
    at: Words = "",
) -> Response:
    with site.database.transaction() as session:
        study = studies.find(session, uid)
        reviews.add_review(session, finding_id, severity, comment, actor.participant, study.id)
    return _redirect(f"/studies/{uid}", "reviewed", at=at)


@router.post("/studies/{uid}/read")
def mark_read(
    site: TheSite,
    actor: Reviewer,
    uid: str,
    undo: Annotated[bool, Form()] = False,
    seen: LastReceived = None,
) -> Response:
    with site.database.transaction() as session:
        reviews.mark_read(
            session,
            studies.find(session, uid),
            actor.participant,
            read=not undo,
            last_received_at=seen,
        )
    return _redirect(f"/studies/{uid}", "unread") if undo else _redirect("/", "read")


@router.post("/studies/{uid}/requeue")
def requeue(site: TheSite, actor: Operator, uid: str) -> Response:
    with site.database.transaction() as session:
        operator_actions.requeue(session, uid, actor.participant)
    return _redirect(f"/studies/{uid}", "requeued")


@router.post("/studies/{uid}/complete")
def complete(site: TheSite, actor: Operator, uid: str) -> Response:
    arriving = site.store.arriving()
    with site.database.transaction() as session:
        operator_actions.complete(session, uid, actor.participant, arriving)
    return _redirect(f"/studies/{uid}", "completed")


@router.post("/studies/{uid}/correct")
def correct(site: TheSite, actor: Operator, uid: str, correction: Words = "") -> Response:
    with site.database.transaction() as session:
        operator_actions.correct(session, uid, actor.participant, correction or None)
    return _redirect(f"/studies/{uid}", "corrected")


@router.post("/quarantine/{instance}/release")
def release(site: TheSite, actor: Operator, instance: QuarantineId, uid: Words = "") -> Response:
    quarantine.release(site, instance, actor.participant)
    return _redirect(f"/studies/{uid}" if uid else "/quarantine", "released")


@router.post("/quarantine/{instance}/drop")
def drop(site: TheSite, actor: Operator, instance: QuarantineId, uid: Words = "") -> Response:
    quarantine.drop(site, instance, actor.participant)
    return _redirect(f"/studies/{uid}" if uid else "/quarantine", "dropped")


@router.post("/studies/{uid}/delete")
def delete(site: TheSite, actor: Admin, uid: str, reason: Words = "") -> Response:
    deletion.delete_study(site, uid, reason, actor.participant)
    return _redirect("/studies", "deleted")


@router.post("/jobs/{job}/retry")
def retry(site: TheSite, actor: Operator, job: Number) -> Response:
    with site.database.transaction() as session:
        operator_actions.retry(session, job, actor.participant)
    return _redirect("/jobs", "retried")


@router.post("/jobs/{job}/cancel")
def cancel(site: TheSite, actor: Operator, job: Number) -> Response:
    with site.database.transaction() as session:
        operator_actions.cancel(session, job, actor.participant)
    return _redirect("/jobs", "cancelled")


@router.post("/jobs/{job}/resend")
def resend(site: TheSite, actor: Operator, job: Number, uid: Words = "") -> Response:
    with site.database.transaction() as session:
        operator_actions.resend(session, job, actor.participant)
    return _redirect(f"/studies/{uid}" if uid else "/jobs", "sent")


@router.post("/destinations/{name:path}/retry")
def retry_destination(site: TheSite, actor: Operator, name: DestinationName) -> Response:
    """Makes the waiting jobs of a destination due, and attempts its dead ones again."""
    with site.database.transaction() as session:
        destination_actions.retry_all(session, name, actor.participant)
    return _redirect("/system", "all retried")


@router.post("/destinations/{name:path}/cancel")
def cancel_destination(site: TheSite, actor: Operator, name: DestinationName) -> Response:
    """Cancels what waits for a destination, or is dead."""
    with site.database.transaction() as session:
        destination_actions.cancel_all(session, name, actor.participant)
    return _redirect("/system", "all cancelled")


@router.post("/destinations/{name:path}/reroute")
def reroute(site: TheSite, actor: Operator, name: DestinationName, to: Words) -> Response:
    """Sends what waits for a destination to another.

    Raises:
        WrongSetting: no destination has that name.
    """
    site.settings.destination(to)
    with site.database.transaction() as session:
        destination_actions.reroute(session, name, to, actor.participant)
    return _redirect("/system", "rerouted")


@router.post("/destinations/{name:path}/echo")
def echo(
    request: Request, site: TheSite, trail: TheAuditTrail, actor: Operator, name: str
) -> Response:
    """Tests whether a destination is reachable: C-ECHO, or a DICOMweb query.

    Raises:
        NotFound: no destination has this name.
    """
    if name not in site.settings.destinations:
        raise NotFound(f"no destination is called {name!r}")
    trail.record("destination.tested", actor.participant, destination=name)
    failure: str | None = None
    try:
        with Peer(site.settings.destination(name), timeout_s=10, limit_s=20) as peer:
            peer.test()
    except LumbarError as error:
        failure = str(error)
    return page(request, "echo.html", name=name, failure=failure)


@router.post("/users")
async def add_user(
    request: Request,
    site: TheSite,
    actor: UserAdmin,
    name: Words,
    password: Words,
    role: Annotated[UserRole, Form()],
) -> Response:
    def add(password_hash: PasswordHash) -> None:
        with site.database.transaction() as session:
            accounts.add_user(session, name, password_hash, role, actor.participant)

    await run_in_threadpool(add, await _hashed(request, actor, password, name))
    return _redirect("/users", "saved")


@router.post("/users/{name}")
def change_user(
    site: TheSite,
    actor: UserAdmin,
    name: str,
    role: Annotated[UserRole | None, Form()] = None,
    disabled: Annotated[bool | None, Form()] = None,
) -> Response:
    with site.database.transaction() as session:
        user = accounts.locked(session, name, [actor.user_id])
        if user.id == actor.user_id and (disabled or role not in (None, user.role)):
            raise Permanent("you cannot lock yourself out; ask another administrator")
        if role is not None and role != user.role:
            accounts.set_role(session, user, role, actor.participant)
        if disabled is not None:
            accounts.set_disabled(session, user, disabled, actor.participant)
    return _redirect("/users", "saved")


@router.post("/users/{name}/password")
async def set_password(
    request: Request,
    site: TheSite,
    actor: UserAdmin,
    name: str,
    password: Words,
    keep_tokens: Annotated[bool, Form()] = False,
) -> Response:
    """Sets a user's password. Their sessions end, and unless ``keep_tokens`` their tokens, too."""

    def change(password_hash: PasswordHash) -> None:
        with site.database.transaction() as session:
            user = accounts.locked(session, name, [actor.user_id])
            if user.id == actor.user_id:
                raise Permanent("change your own password under /me, with the present one")
            accounts.set_password(
                session, user, password_hash, actor.participant, keep_tokens=keep_tokens
            )

    await run_in_threadpool(change, await _hashed(request, actor, password, name))
    return _redirect("/users", "saved")


async def _hashed(request: Request, actor: Actor, password: str, user: str) -> PasswordHash:
    queue = queue_of(request)
    return await queue.run(f"user {actor.user_id}", False, new_hash, password, user)


@router.post("/tokens")
def add_token(
    request: Request,
    site: TheSite,
    actor: UserAdmin,
    user: Words,
    name: Words,
    scopes: Annotated[list[Permission], Form()],
    days: Annotated[float, Form(gt=0, le=3660)] = 365,
) -> Response:
    with site.database.transaction() as session:
        token = api_tokens.new_token(
            session, accounts.user_named(session, user), name, scopes, days, actor.participant
        )
    return page(request, "token.html", token=token, user=user)


@router.post("/tokens/{token}/revoke")
def revoke(site: TheSite, actor: Admin, token: Number) -> Response:
    with site.database.transaction() as session:
        api_tokens.revoke_token(session, token, actor.participant)
    return _redirect("/users", "saved")
