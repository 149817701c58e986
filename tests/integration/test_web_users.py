"""Administration of users and tokens by the page: every change takes effect at once."""

import pytest

from db.models import ApiToken, User, UserRole
from tests.integration.web_client import (
    BASE_URL,
    WebClient,
    audit_rows,
    browser_client,
    count,
    row,
    sqlite_only,
)
from web.app import create_app

PASSWORD = "correct horse battery"


@pytest.fixture
def app(site):
    return create_app(site)


@pytest.fixture
def admin(app) -> WebClient:
    return browser_client(app, UserRole.ADMIN)


def add(admin, name="anna", role="reader", password=PASSWORD):
    return admin.submit("/users", name=name, role=role, password=password)


def change(admin, name, **form):
    """Submits the form beside the name on the page."""
    page = admin.get("/users").text
    beside = page.partition(f'<th scope="row">{name}</th>')[2]
    return admin.submit(beside.partition('action="')[2].partition('"')[0], **form)


def signed_in(app, name="anna", password=PASSWORD) -> WebClient:
    browser = WebClient(app)
    assert browser.post("/sign-in", data={"name": name, "password": password}).status_code == 303
    return browser


def test_a_new_user_signs_in_with_the_permissions_of_the_role(app, site, admin):
    assert add(admin).status_code == 303
    anna = signed_in(app)
    assert "reader and may: read, review" in anna.get("/me").text
    assert anna.get("/users").status_code == 403
    assert audit_rows(site)[0][:2] == ("user.added", "admin")


@pytest.mark.parametrize(
    ("form", "status", "reason"),
    [
        ({"password": "short"}, 409, "12 to 1024 characters"),
        ({"name": "an\x00na"}, 422, "name"),
        *(
            ({"name": name}, 409, "1 to 64 characters: letters")
            for name in ("a" * 65, "a/b", ".", "..", " anna", "<b>", "a (ris)")
        ),
        ({"name": "admin"}, 409, "already"),
        ({"role": "king"}, 422, "role"),
    ],
)
def test_an_invalid_user_is_refused_with_a_reason(site, admin, form, status, reason):
    response = add(admin, **form)
    assert (response.status_code, reason in response.text) == (status, True)
    assert count(site, User) == 1


@sqlite_only
@pytest.mark.parametrize("name", ["anna", "Anna Müller", "a+b@c.de", "..a", "анна"])
def test_role_and_disabling_take_effect_at_once_whatever_the_name(app, admin, name):
    add(admin, name)
    anna = signed_in(app, name)
    assert change(admin, name, role="operator").status_code == 303
    assert anna.get("/jobs").status_code == 200
    assert change(admin, name, disabled="true").status_code == 303
    assert anna.get("/").status_code == 303
    assert (
        WebClient(app).post("/sign-in", data={"name": name, "password": PASSWORD}).status_code
        == 401
    )
    assert change(admin, name, disabled="false").status_code == 303
    assert anna.get("/").status_code == 303  # the old session has ended for good
    signed_in(app, name)


def test_an_administrator_sets_a_new_password(app, admin):
    add(admin)
    anna = signed_in(app)
    path = "/users/anna/password"
    assert f'action="{path}"' in admin.get("/users").text
    assert admin.submit(path, password="short").status_code == 409
    assert admin.submit(path, password="annaanna1234").status_code == 409
    assert admin.submit(path, password="another good one").status_code == 303
    assert anna.get("/").status_code == 303
    signed_in(app, password="another good one")


@sqlite_only
@pytest.mark.parametrize(
    "form", [{"disabled": "true"}, {"role": "viewer"}, {"role": "reader", "disabled": "true"}]
)
def test_administrators_cannot_lock_themselves_out(site, admin, form):
    response = change(admin, "admin", **form)
    assert response.status_code == 409
    assert "You cannot lock yourself out" in response.text
    assert (row(site, User).role, row(site, User).disabled_at) == (UserRole.ADMIN, None)
    assert change(admin, "admin", role="admin").status_code == 303
    assert admin.get("/users").status_code == 200


def test_an_unknown_user_is_404(admin):
    assert admin.submit("/users/4711", role="viewer").status_code == 404


def create_token(admin, **form):
    return admin.submit("/tokens", **{"user": "anna", "name": "ris", "scopes": "read"} | form)


def token_on(page: str) -> str:
    return page.partition('<pre id="token">')[2].partition("</pre>")[0]


def test_a_token_is_shown_once_and_valid_until_it_is_revoked(app, site, admin):
    add(admin)
    token = token_on(create_token(admin).text)
    assert token.startswith("lumbar_")
    program = WebClient(app, Authorization=f"Bearer {token}")
    assert program.get("/api/v1/worklist").status_code == 200
    page = admin.get("/users").text
    assert "Revoke ris" in page
    assert token not in page
    assert token not in "".join(str(vars(row(site, ApiToken))))
    assert admin.submit("/tokens/1/revoke").status_code == 303
    assert program.get("/api/v1/worklist").status_code == 401
    assert "revoked" in admin.get("/users").text
    assert admin.submit("/tokens/4711/revoke").status_code == 404
    assert [event for event, *_ in audit_rows(site) if "token" in event] == [
        "token.made",
        "token.revoked",
    ]


@sqlite_only
@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"scopes": "administer"}, 409),
        ({"scopes": ["read", "operate"]}, 409),
        ({"scopes": []}, 422),
        ({"scopes": "everything"}, 422),
        ({"user": "nobody"}, 404),
        ({"name": "a" * 65}, 409),
        ({"days": "0"}, 422),
        ({"days": "nan"}, 422),
        ({"days": "1e9"}, 422),
    ],
)
def test_an_invalid_token_request_is_refused(site, admin, form, status):
    add(admin)
    assert create_token(admin, **form).status_code == status
    assert count(site, ApiToken) == 0


@sqlite_only
@pytest.mark.parametrize(("form", "status"), [({}, 401), ({"keep_tokens": "true"}, 200)])
def test_a_password_set_by_an_administrator_revokes_tokens_unless_told_otherwise(
    app, admin, form, status
):
    add(admin)
    program = WebClient(app, Authorization=f"Bearer {token_on(create_token(admin).text)}")
    assert admin.submit("/users/anna/password", password="another good one", **form).is_redirect
    assert program.get("/api/v1/worklist").status_code == status


def test_a_token_is_invalid_once_its_user_is_disabled(app, admin):
    add(admin)
    program = WebClient(app, Authorization=f"Bearer {token_on(create_token(admin).text)}")
    change(admin, "anna", disabled="true")
    response = program.get("/api/v1/worklist", headers={"Origin": BASE_URL})
    assert response.status_code == 401


def test_an_administrator_changes_their_own_password_only_with_the_present_one(admin):
    answer = admin.submit("/users/admin/password", password="an unused password of four words")
    assert answer.status_code == 409
    assert "the present one" in answer.text
