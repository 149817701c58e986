"""PgBouncer, pooling by transactions, before PostgreSQL: sessions hold no state of ours."""

import threading

import pytest
from sqlalchemy import text

from db import schema
from db.database import Database, DatabaseUnavailable
from tests.servers import PgBouncer
from tests.system import System, closing_database, wait_until

pytestmark = [pytest.mark.postgresql, pytest.mark.no_cover, pytest.mark.slow]


@pytest.fixture(scope="module")
def pgbouncer(postgres, tmp_path_factory):
    with PgBouncer(tmp_path_factory.mktemp("pgbouncer"), postgres) as server:
        yield server


def test_the_schema_is_upgraded_through_it(postgres, pgbouncer):
    with closing_database(pgbouncer.url(postgres.new_database())) as database:
        schema.upgrade(database)
        assert schema.differences(database) == []


def test_many_threads_share_a_few_sessions(postgres, pgbouncer):
    with closing_database(pgbouncer.url(postgres.migrated_database())) as database:
        seen, limits = set(), set()

        def work():
            for _ in range(20):
                with database.transaction() as session:
                    session.execute(text("SELECT * FROM study WHERE id = :id"), {"id": 1}).all()
                    seen.add(session.scalar(text("SELECT pg_backend_pid()")))
                    limits.add(session.scalar(text("SHOW statement_timeout")))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 <= len(seen) <= 4  # PgBouncer's sessions, not the pool's
    assert limits == {"1min"}


def test_another_clients_session_has_no_limits_of_ours(postgres, pgbouncer):
    url = pgbouncer.url(postgres.migrated_database())
    with closing_database(url) as database, database.transaction() as session:
        session.execute(text("SELECT 1"))
    with closing_database(url) as database:
        autocommit = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            for name in ("statement_timeout", "lock_timeout"):
                default = "SELECT setting = reset_val FROM pg_settings WHERE name = :name"
                assert connection.scalar(text(default), {"name": name})


def test_a_database_it_does_not_have_is_named(postgres, pgbouncer):
    wrong = Database.connect(pgbouncer.url("/nothing"))
    with pytest.raises(DatabaseUnavailable, match='database "nothing" does not exist'):
        schema.check(wrong)
    wrong.close()


def test_the_whole_system_runs_through_it(postgres, pgbouncer, redis, phantom, tmp_path):
    folder, truth = phantom(1)
    settings = {
        "LUMBAR_DATABASE_URL": pgbouncer.url(postgres.new_database()),
        "LUMBAR_BROKER_URL": redis.url,
    }
    system = System(tmp_path / "system", settings)
    try:
        system.start()
        wait_until(lambda: system.dcmsend(folder).returncode == 0, 60, system.tail)
        system.wait_for_states({truth.study_instance_uid: "analysed"}, 120)
        assert len(system.findings()) == 25
        for fault in ("registration.fault", "sweep.fault", "job.fault", "task.fault"):
            assert fault not in system.log.read_text()
    finally:
        system.kill()
