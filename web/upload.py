"""Uploaded images: analysed once by a worker, shown to the user, and deleted.

The web process only writes the bytes to disk; a worker interprets them (``worker/preview.py``).
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path as File
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from db import disk_usage, previews
from db.actors import Actor
from db.context import SiteContext
from db.models import JobState, Permission, Preview
from db.preview_results import PreviewResult
from lumbar.errors import NotFound
from lumbar.spine.anatomy import FindingKey
from lumbar.store.files import StoreFull
from web.audit_trail import AuditTrail
from web.auth import (
    CSRF_FIELD,
    CSRF_HEADER,
    UNSAFE,
    NotAllowed,
    TheAuditTrail,
    TheSite,
    Viewer,
    require_csrf_token,
    require_same_origin,
    signed_in,
)
from web.multipart import MAX_FILES, FormReader, NotAForm, TooLarge
from web.rendering import page

router = APIRouter(include_in_schema=False)

ADDRESS = "/upload"
MAX_DURATION_S = previews.RETENTION_S  # after that an unfinished upload is deleted anyway
ROOM_CHECK_BYTES = 64 * 2**20  # received between two checks for room on the disk

Name = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


def uploader(request: Request, site: TheSite) -> Actor:
    """A user who may upload. The form's CSRF token is checked while the form is received.

    Raises:
        NotAllowed: the user may not upload, or the request comes from another site's page.
    """
    actor = signed_in(request, site)
    if not (actor.may(Permission.REVIEW) or actor.may(Permission.OPERATE)):
        raise NotAllowed(f"{actor.name} may not upload; ask an administrator for another role")
    if request.method in UNSAFE and actor.csrf_token is not None:
        require_same_origin(request)
    needs = Permission.REVIEW if actor.may(Permission.REVIEW) else Permission.OPERATE
    actor = replace(actor, needs=needs)
    request.state.actor = actor
    return actor


Uploader = Annotated[Actor, Depends(uploader)]


@router.get(ADDRESS)
def upload_page(request: Request, site: TheSite, actor: Uploader) -> Response:
    with site.database.reading() as session:
        uploads = previews.list_for_user(session, actor.user_id)
    return page(
        request,
        "upload.html",
        uploads=uploads,
        stage=_stage,
        max_mib=site.settings.upload_mib,
        max_files=MAX_FILES,
    )


@router.post(ADDRESS)
async def upload(request: Request, site: TheSite, actor: Uploader) -> Response:
    """Receives files; without JavaScript, the form sends the CSRF token as its first field.

    Raises:
        HTTPException: 408, the upload took too long or stalled.
        StoreFull: the files cannot be written.
    """
    receiver = _UploadReceiver(request, site, actor)
    try:
        with anyio.fail_after(MAX_DURATION_S):
            await receiver.receive()
    except ClientDisconnect:
        return Response(status_code=400)  # the client is gone
    except TimeoutError as error:
        raise HTTPException(408, "the upload took too long or stalled; try again") from error
    except OSError as error:
        raise StoreFull(f"the upload cannot be written: {error.strerror}") from error
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(receiver.close)
    return RedirectResponse(f"{ADDRESS}/{receiver.name}", 303)


class _UploadReceiver:
    """Receives one upload; nothing of it is kept unless it arrives completely."""

    def __init__(self, request: Request, site: SiteContext, actor: Actor) -> None:
        self._site, self._actor, self._request = site, actor, request
        self._max_bytes = site.settings.upload_mib * 2**20
        self._complete = False
        self._form: FormReader | None = None
        self.name: str | None = None

    async def receive(self) -> None:
        headers = self._request.headers
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_bytes:
            raise TooLarge(
                f"an upload may have at most {self._site.settings.upload_mib} MiB "
                "(LUMBAR_UPLOAD_MIB)"
            )
        self._form = form = FormReader(
            headers.get("content-type", ""), self._max_bytes, self._begin
        )
        checks = 0
        async for chunk in self._chunks():
            if form.size >= checks * ROOM_CHECK_BYTES:
                checks = form.size // ROOM_CHECK_BYTES + 1
                await run_in_threadpool(disk_usage.require_room, self._site)
            await run_in_threadpool(form.write, chunk)
        await run_in_threadpool(self._finish, form)

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The request's body; raises TimeoutError if the client stalls, or ClientDisconnect."""
        chunks = self._request.stream()
        while True:
            with anyio.fail_after(self._site.settings.network_timeout_s):
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
            yield chunk

    def _begin(self, fields: Mapping[str, str]) -> File:
        """Checks token and permission before the first file, and creates the preview's folder.

        Raises:
            NotAllowed: the CSRF token is not the session's, or the user may not keep images.
        """
        csrf_token = self._request.headers.get(CSRF_HEADER, fields.get(CSRF_FIELD, ""))
        require_csrf_token(self._actor, csrf_token)
        keep = bool(fields.get("keep"))
        if keep and not self._actor.may(Permission.OPERATE):
            raise NotAllowed(
                f"{self._actor.name} may not keep uploaded images; upload without that option"
            )
        if keep:
            self._actor = replace(self._actor, needs=Permission.OPERATE)
        self.name = previews.create(self._site, self._actor.user_id, keep=keep)
        return previews.folder(self._site, self.name) / previews.UPLOAD

    def _finish(self, form: FormReader) -> None:
        form.end()
        if self.name is None:
            raise NotAForm("no file was chosen")
        with self._site.database.transaction() as session:
            previews.mark_uploaded(session, self.name, files=form.files, size=form.size)
            preview = previews.find(session, self.name, self._actor)
            previews.note(session, "upload.received", preview, self._actor.participant)
        self._complete = True

    def close(self) -> None:
        if self._form is not None:
            self._form.close()
        if self.name is not None and not self._complete:
            previews.discard(self._site, self.name)


@router.get(ADDRESS + "/{name}")
def preview_page(
    request: Request, site: TheSite, trail: TheAuditTrail, actor: Uploader, name: Name
) -> Response:
    preview = _find(site, name, actor)
    if preview.result is not None:
        _record_view(trail, actor, preview)
    return page(
        request,
        "preview.html",
        preview=preview,
        in_progress=preview.state not in previews.ENDED,
        stage=_stage(preview),
        answer=PreviewResult.from_json(preview.result),
        picture=(previews.folder(site, name) / previews.PICTURE).exists(),
        FindingKey=FindingKey,
    )


@router.get(ADDRESS + "/{name}/picture")
def picture(site: TheSite, trail: TheAuditTrail, actor: Uploader, name: Name) -> Response:
    """The picture on which the user can check the findings.

    Raises:
        NotFound: the upload has no picture, or none yet.
    """
    preview = _find(site, name, actor)
    path = previews.folder(site, preview.name) / previews.PICTURE
    if not path.exists():
        raise NotFound("the upload has no picture")
    _record_view(trail, actor, preview)
    return FileResponse(path, media_type="image/png")


@router.post(ADDRESS + "/{name}/forget")
def forget(site: TheSite, actor: Viewer, name: Name) -> Response:
    """Deletes files, picture and findings at once."""
    previews.forget(site, _find(site, name, actor), actor.participant)
    return RedirectResponse(ADDRESS, 303)


def _record_view(trail: AuditTrail, actor: Actor, preview: Preview) -> None:
    whose = preview.user.name
    trail.record_view("upload.seen", actor.participant, upload=preview.id, user=whose)


def _find(site: SiteContext, name: str, actor: Actor) -> Preview:
    with site.database.reading() as session:
        return previews.find(session, name, actor)


def _stage(preview: Preview) -> str:
    """What has become of an upload so far, as the page shows it."""
    if preview.state in previews.ENDED and preview.failure:
        return "nothing could be read"
    if preview.state is JobState.DONE:
        return "kept" if preview.keep else "read"
    if preview.uploaded_at is None:
        return "uploading"
    if preview.state is JobState.PENDING:
        return "waiting for a worker"
    if preview.images is None:
        return "opening the files"
    return f"analysing {preview.images} {'image' if preview.images == 1 else 'images'}"
