"""Images that somebody has at hand: uploaded, read once by a worker, shown, and forgotten.

Here the bytes are only written down; a worker looks into them (``worker/preview.py``).
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path as File
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from db import previews
from db.accounts import Actor
from db.context import SiteContext
from db.models import JobState, Permission, Preview
from db.preview_results import Answer
from lumbar.errors import NotFound
from lumbar.spine.anatomy import FindingKey
from lumbar.store.files import StoreFull
from web.auth import (
    CSRF_FIELD,
    CSRF_HEADER,
    UNSAFE,
    NotAllowed,
    TheAuditTrail,
    TheSite,
    Viewer,
    require_our_form,
    require_same_origin,
    signed_in,
)
from web.multipart import MAX_FILES, Incoming, NotAForm, TooLarge
from web.rendering import page

router = APIRouter(include_in_schema=False)

ADDRESS = "/upload"
WITHIN_S = previews.KEPT_S  # an upload takes no longer: then it is forgotten
ROOM_EVERY = 64 * 2**20  # bytes after which the disk is looked at again

Name = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


def uploader(request: Request, site: TheSite) -> Actor:
    """Who may upload. The form's token is looked at as the form arrives, for here nothing of it is read."""
    actor = signed_in(request, site)
    if not (actor.may(Permission.REVIEW) or actor.may(Permission.OPERATE)):
        raise NotAllowed(f"{actor.name} may not upload; ask an administrator for another role")
    if request.method in UNSAFE and actor.csrf_token is not None:
        require_same_origin(request)
    request.state.actor = actor
    return actor


Uploader = Annotated[Actor, Depends(uploader)]


@router.get(ADDRESS)
def upload_page(request: Request, site: TheSite, actor: Uploader) -> Response:
    with site.database.reading() as session:
        own = previews.of_user(session, actor.user_id)
    max_mib = site.settings.upload_mib
    return page(
        request, "upload.html", own=own, stage=_stage, max_mib=max_mib, most_files=MAX_FILES
    )


@router.post(ADDRESS)
async def upload(request: Request, site: TheSite, actor: Uploader) -> Response:
    """Takes the files in as they come; a form without a script sends its token as its first field."""
    arriving = _Upload(request, site, actor)
    try:
        with anyio.fail_after(WITHIN_S):
            await arriving.receive()
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    except TimeoutError as error:
        raise HTTPException(
            408, "the upload took too long or came to a stop; try it again"
        ) from error
    except OSError as error:
        raise StoreFull(f"the upload cannot be written: {error.strerror}") from error
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(arriving.close)
    return RedirectResponse(f"{ADDRESS}/{arriving.name}", 303)


class _Upload:
    """One upload on its way; unless it arrives as a whole, nothing of it stays."""

    def __init__(self, request: Request, site: SiteContext, actor: Actor) -> None:
        self._site, self._actor, self._request = site, actor, request
        self._most = site.settings.upload_mib * 2**20
        self._whole = False
        self._form: Incoming | None = None
        self.name: str | None = None

    async def receive(self) -> None:
        headers = self._request.headers
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most:
            raise TooLarge(f"an upload may have {self._site.settings.upload_mib} MiB")
        self._form = form = Incoming(headers.get("content-type", ""), self._most, self._begin)
        checked = -1
        async for chunk in self._pieces():
            if form.size // ROOM_EVERY > checked:
                checked = form.size // ROOM_EVERY
                await run_in_threadpool(self._require_room)
            await run_in_threadpool(form.take, chunk)
        await run_in_threadpool(self._finish, form)

    async def _pieces(self) -> AsyncIterator[bytes]:
        """The body; a sender who falls silent is not waited for. Raises TimeoutError, ClientDisconnect."""
        pieces = self._request.stream()
        while True:
            with anyio.fail_after(self._site.settings.network_timeout_s):
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            yield piece

    def _begin(self, fields: Mapping[str, str]) -> File:
        """The first file comes: is the form ours, and may they?"""
        require_our_form(
            self._actor, self._request.headers.get(CSRF_HEADER, fields.get(CSRF_FIELD, ""))
        )
        keep = bool(fields.get("keep"))
        if keep and not self._actor.may(Permission.OPERATE):
            raise NotAllowed(f"{self._actor.name} may not have images kept; upload them without")
        self.name = previews.create(self._site, self._actor.user_id, keep=keep)
        return previews.folder(self._site, self.name) / previews.UPLOAD

    def _require_room(self) -> None:
        if (fill := self._site.store.fill_ratio()) > self._site.settings.disk_refuse_above:
            raise StoreFull(
                f"the disk is {fill:.0%} full; nothing can be uploaded until there is room"
            )

    def _finish(self, form: Incoming) -> None:
        form.end()
        if self.name is None:
            raise NotAForm("no file was chosen")
        with self._site.database.transaction() as session:
            previews.arrived(session, self.name, files=form.files, size=form.size)
        self._whole = True

    def close(self) -> None:
        if self._form is not None:
            self._form.close()
        if self.name is not None and not self._whole:
            previews.forget(self._site, self.name)


@router.get(ADDRESS + "/{name}")
def preview_page(
    request: Request, site: TheSite, trail: TheAuditTrail, actor: Uploader, name: Name
) -> Response:
    preview = _find(site, name, actor)
    if preview.answer is not None:
        trail.record_view("upload.seen", actor.name)
    return page(
        request,
        "preview.html",
        preview=preview,
        going=preview.state not in previews.ENDED,
        stage=_stage(preview),
        answer=Answer.read(preview.answer),
        picture=(previews.folder(site, name) / previews.PICTURE).exists(),
        FindingKey=FindingKey,
    )


@router.get(ADDRESS + "/{name}/picture")
def picture(site: TheSite, trail: TheAuditTrail, actor: Uploader, name: Name) -> Response:
    """The picture to check the answer by."""
    path = previews.folder(site, _find(site, name, actor).name) / previews.PICTURE
    if not path.exists():
        raise NotFound("there is no picture")
    trail.record_view("upload.seen", actor.name)
    return FileResponse(path, media_type="image/png")


@router.post(ADDRESS + "/{name}/forget")
def forget(site: TheSite, actor: Viewer, name: Name) -> Response:
    """Removes files, picture and answer at once."""
    previews.forget(site, _find(site, name, actor).name)
    return RedirectResponse(ADDRESS, 303)


def _find(site: SiteContext, name: str, actor: Actor) -> Preview:
    with site.database.reading() as session:
        return previews.find(session, name, actor)


def _stage(preview: Preview) -> str:
    """How far it is, in words."""
    if preview.state in previews.ENDED and preview.reason:
        return "nothing could be read"
    if preview.state is JobState.DONE:
        return "kept" if preview.keep else "read"
    if preview.uploaded_at is None:
        return "arriving"
    if preview.state is JobState.PENDING:
        return "waits for its turn"
    if preview.images is None:
        return "the files are being opened"
    return f"{preview.images} {'image is' if preview.images == 1 else 'images are'} being analysed"
