"""The migrations make the tables, and a database of another schema is refused."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import select, text

from db import audit, operating_time, schema
from db.context import SiteContext
from db.database import Database, DatabaseUnavailable
from db.models import Job, JobKind, JobState, Preview, Study, User, UserRole
from db.preview_results import PreviewResult
from db.schema import SchemaOutdated
from db.types import read_clock
from lumbar.audit_messages import Outcome
from lumbar.errors import WrongSetting
from lumbar.settings import Settings
from tests.databases import sqlite_database
from tests.peers import free_port
from tests.system import closing_database

NOON = "2026-11-25 12:00:00"
OF_0001 = {
    "patient": {
        "id": 1,
        "issuer": "A",
        "patient_identifier": "P",
        "name": "",
        "birth_date": "",
        "sex": "",
    },
    "study": {
        "id": 1,
        "patient_id": 1,
        "study_instance_uid": "1.2",
        "accession_number": "",
        "study_date": "",
        "description": "",
        "stat": 0,
        "state": "queued",
        "revision": 1,
        "first_received_at": NOON,
        "last_received_at": NOON,
    },
    "job": {
        "id": 1,
        "kind": "analyse",
        "study_id": 1,
        "revision": 1,
        "destination": "",
        "priority": 0,
        "state": "pending",
        "run_after": NOON,
        "attempts": 2,
        "losses": 0,
        "rung_at": NOON,
        "created_at": NOON,
    },
}


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=[pytest.mark.postgresql, pytest.mark.no_cover]),
    ]
)
def database(request, tmp_path):
    """Brought to the newest schema by the migrations themselves, not copied from a template."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'lumbar.sqlite'}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    with closing_database(url) as database:
        schema.upgrade(database)
        yield database


def test_the_migrations_create_exactly_the_tables_of_the_code(database):
    assert schema.differences(database) == []


def test_upgrading_twice_does_no_harm(database):
    assert schema.upgrade(database) == schema.newest()


def test_an_empty_database_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(SchemaOutdated, match="run `lumbar db upgrade`"):
        SiteContext.open(Settings(home=tmp_path))


def test_an_unavailable_database_is_reported():
    unavailable = Database.connect(
        f"postgresql+psycopg://lumbar:secret@127.0.0.1:{free_port()}/none"
    )
    with pytest.raises(DatabaseUnavailable, match="is it running") as error:
        schema.upgrade(unavailable)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("code", ["EROFS", "ENOSPC", "EDQUOT", "EIO", "ESTALE", "ENODEV"])
@pytest.mark.parametrize("place", ["stat", "mkdir", "touch"])
def test_a_disk_that_refuses_for_now_is_awaited(tmp_path, monkeypatch, place, code):
    def refuse(path, *_, **__):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), str(path))

    url = f"sqlite:///{tmp_path / 'home' / 'lumbar.sqlite'}"
    with closing_database(url) as database, monkeypatch.context() as patched:
        patched.setattr(Path, place, refuse)
        with pytest.raises(DatabaseUnavailable, match=os.strerror(getattr(errno, code))):
            schema.upgrade(database)
    with closing_database(url) as database:
        assert schema.upgrade(database) == schema.newest()


def test_a_place_where_no_database_can_be_is_a_wrong_setting(tmp_path):
    (tmp_path / "home").touch()
    with (
        closing_database(f"sqlite:///{tmp_path / 'home' / 'lumbar.sqlite'}") as database,
        pytest.raises(WrongSetting, match=r"LUMBAR_HOME.*Not a directory"),
    ):
        schema.upgrade(database)


def test_the_file_of_a_database_is_not_touched(tmp_path):
    file = tmp_path / "lumbar.sqlite"
    with closing_database(sqlite_database(file)) as database:
        os.utime(file, (1, 1))
        assert schema.upgrade(database) == schema.newest()
    assert file.stat().st_mtime == 1


def test_an_invalid_url_is_reported_with_its_setting():
    with pytest.raises(WrongSetting, match="LUMBAR_DATABASE_URL"):
        Database.connect("somewhere")


def test_a_job_of_the_first_schema_survives_the_upgrade(database):
    with database.engine.connect() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        for table, columns in OF_0001.items():
            names, values = (
                ", ".join(columns),
                ", ".join(f"'{value}'" for value in columns.values()),
            )
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"))
        connection.commit()
    assert schema.upgrade(database) == schema.newest()
    assert schema.differences(database) == []
    with database.reading() as session:
        job = session.scalars(select(Job)).one()
    assert (job.kind, job.state, job.attempts) == (JobKind.ANALYSE, JobState.PENDING, 2)


def test_the_cautions_of_an_upload_read_before_the_upgrade_are_there_after_it(database):
    stored = PreviewResult(caveats=("the numbering is uncertain",)).to_json()
    with database.transaction() as session:
        user = User(name="reader", password_hash="none", role=UserRole.READER)
        session.add(user)
        session.flush()
        session.add(Preview(name="0" * 32, user_id=user.id, keep=False, result=stored))
        session.add(Preview(name="1" * 32, user_id=user.id, keep=False))
    with database.engine.connect() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")
        (answer,) = connection.scalars(text("SELECT answer FROM preview WHERE answer IS NOT NULL"))
        assert "doubts" in str(answer)
        assert "caveats" not in str(answer)
        connection.commit()
    schema.upgrade(database)
    with database.reading() as session:
        results = session.scalars(select(Preview.result).order_by(Preview.id)).all()
    assert PreviewResult.from_json(results[0]).caveats == ["the numbering is uncertain"]
    assert results[1] is None


def test_ages_of_the_time_before_the_upgrade_are_kept(database):
    ended = {"ended_at": "2026-11-20 12:00:00", "state": "analysed"}
    ahead = {"ended_at": "2099-11-20 12:00:00", "state": "failed"}
    with database.engine.connect() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0009")
        patient = OF_0001["patient"]
        studies = [
            {**OF_0001["study"], **values, "id": n, "study_instance_uid": f"1.{n}"}
            for n, values in enumerate((ended, ahead, {}), 1)
        ]
        for table, row in (("patient", patient), *(("study", study) for study in studies)):
            literals = [f"'{value}'" for value in row.values()]
            defaults = {"study": ", study_time, scanner, severe", "patient": ""}[table]
            values = {"study": ", '', '', false", "patient": ""}[table]
            names = ", ".join(row) + defaults
            connection.execute(
                text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(literals)}{values})")
            )
        connection.commit()
    assert schema.upgrade(database) == schema.newest()
    assert schema.differences(database) == []
    with database.reading() as session:
        now = operating_time.read(session)
        rows = session.execute(select(Study.result_s, Study.kept_from_s).order_by(Study.id)).all()
        assert abs(now - read_clock(session).timestamp()) < 60
    day_of_2026 = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
    received = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
    assert [tuple(row) for row in rows] == [
        (now, min(day_of_2026, now)),  # unread, and nobody has been warned that it expires
        (now, now),  # the clock was ahead
        (None, min(received, now)),
    ]


def test_sqlite_sorts_patients_data_in_memory_not_in_the_systems_temporary_folder(tmp_path):
    with closing_database(sqlite_database(tmp_path / "a.sqlite")) as database:  # noqa: SIM117
        with database.reading() as session:
            assert session.connection().exec_driver_sql("PRAGMA temp_store").scalar() == 2


def test_audit_lines_of_the_time_before_the_upgrade_say_from_where_and_how_they_ended(database):
    earlier = (
        ("study.seen", "anna", "{}"),
        ("sign_in.refused", "10.0.0.7", "{}"),
        ("association.rejected", "MR2", '{"why": "unknown", "peer": "10.0.0.8"}'),
        ("connection.refused", "", '{"why": "unknown", "peer": null}'),
        ("store.missing", "sweep", '{"count": 3}'),
    )
    with database.engine.connect() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0011")
        for event, actor, detail in earlier:
            connection.execute(
                text(
                    "INSERT INTO audit_event (happened_at, event, actor, detail) "
                    "VALUES ('2026-11-20 12:00:00', :event, :actor, :detail)"
                ),
                {"event": event, "actor": actor, "detail": detail},
            )
        connection.commit()
    assert schema.upgrade(database) == schema.newest()
    with database.reading() as session:
        lines = [line for _, line in audit.lines_after(session, 0, 10)]
    assert [(line.actor, line.address, line.outcome, line.times) for line in lines] == [
        ("anna", "", Outcome.SUCCESS, 1),
        ("", "10.0.0.7", Outcome.REFUSED, 1),
        ("MR2", "10.0.0.8", Outcome.REFUSED, 1),
        ("", "", Outcome.REFUSED, 1),
        ("sweep", "", Outcome.SERIOUS_FAILURE, 1),
    ]
