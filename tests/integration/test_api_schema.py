"""The API conforms to its OpenAPI description for every request that schemathesis generates."""

import zlib
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from db.context import SiteContext
from db.database import Database
from db.models import UserRole
from lumbar.settings import Settings
from lumbar.store.files import Store
from tests.factories.instances import ROOT
from tests.factories.quarantine import send, send_corrected, send_unregistrable
from tests.integration.site_with_studies import (
    ARRIVING_UID,
    FAILED_UID,
    REFUSED_UID,
    SEVERE_UID,
    add_studies,
    open_site,
)
from tests.integration.web_client import WebClient, token_client
from web.app import create_app
from web.audit_trail import AuditTrail

DESCRIPTION = "/api/v1/openapi.json"
EXAMPLES = 40  # requests of each kind per operation
# Both assume the generated ids, some of which are replaced by existing ones.
EXCLUDED_CHECKS = {"positive_data_acceptance", "negative_data_rejection"}
CORRECTED = 5  # number of a study
CORRECTED_UID = f"{ROOT}.{CORRECTED}"
EXISTING = {
    "uid": (SEVERE_UID, FAILED_UID, REFUSED_UID, ARRIVING_UID, CORRECTED_UID),
    "instance": ("7", "8", "9"),
    "finding_id": (1, 25),
    "job": (1, 2, 3, 4),
    "after": (SEVERE_UID, REFUSED_UID),
}


# Without a site yet: only its description is read at import.
HOST = "testserver"  # as the generated requests call it
app = create_app(
    SiteContext(Settings(web_hosts=HOST), Database.connect("sqlite://"), Store(Path("nowhere")))
)
config = SchemathesisConfig.from_dict({"generation": {"mode": "all", "database": "none"}})
schema = schemathesis.openapi.from_asgi(DESCRIPTION, app, config=config)


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """An administrator's token; also gives the application a site with studies."""
    site = open_site(tmp_path_factory.mktemp("api"))
    add_studies(site)
    send_corrected(site.database, site.store, CORRECTED)
    send(site.database, site.store, study=CORRECTED, number=2, fill=99)
    send_unregistrable(site.database, site.store)
    app.state.site, app.state.trail = site, AuditTrail(site)
    yield token_client(app, UserRole.ADMIN).headers["authorization"]
    site.database.close()


@schema.hook("map_path_parameters")
def path_with_existing_ids(context, parameters):
    return with_existing_ids(parameters)


@schema.hook("map_query")
def query_with_existing_ids(context, parameters):
    return with_existing_ids(parameters)


def with_existing_ids(parameters):
    """Replaces every other generated id by one that exists."""
    for name in set(EXISTING) & set(parameters or {}):
        drawn = zlib.crc32(repr(parameters[name]).encode())
        if drawn % 2:
            parameters[name] = EXISTING[name][drawn // 2 % len(EXISTING[name])]
    return parameters


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_every_response_conforms_to_the_description(case, token):
    checks = [check for check in CHECKS.get_all() if check.__name__ not in EXCLUDED_CHECKS]
    case.call_and_validate(headers={"Authorization": token}, checks=checks)


def test_the_description_is_open_and_complete():
    description = WebClient(app).get(DESCRIPTION).json()
    operations = [
        (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) == 24
    for path, _, operation in operations:
        assert path.startswith("/api/v1/")
        assert operation["summary"]
        assert operation["security"] == [{"HTTPBearer": []}]
        assert {"401", "403", "422", "503"} <= set(operation["responses"])
