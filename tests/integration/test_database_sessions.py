"""Sessions with a real PostgreSQL that fails over, ends sessions or refuses them."""

import pytest
from sqlalchemy import text

from db import schema
from db.database import Database, DatabaseUnavailable
from lumbar.errors import WrongSetting
from tests.peers import free_port
from tests.servers import PgBouncer, Postgres
from tests.system import closing_database

pytestmark = [pytest.mark.postgresql, pytest.mark.no_cover]


@pytest.fixture
def url(postgres):
    url = postgres.migrated_database()
    yield url
    postgres.drop(url)


def write(database):
    with database.transaction() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS written (number integer)"))
        session.execute(text("INSERT INTO written VALUES (1)"))


def administer(postgres, url, statement):
    """As another session would: of the server's operator."""
    postgres._execute(statement.format(name=url.rpartition("/")[2]))


def read_only(postgres, url, on):
    administer(postgres, url, f"ALTER DATABASE {{name}} SET default_transaction_read_only = {on}")


def test_a_session_that_was_read_only_is_not_used_again(postgres, url):
    with closing_database(url) as database:
        write(database)
        with database.engine.connect() as connection:  # the pool's session, as after a failover
            connection.exec_driver_sql("SET SESSION default_transaction_read_only = on")
            connection.commit()
        with pytest.raises(DatabaseUnavailable):
            write(database)
        write(database)


def test_a_server_that_is_read_only_is_named_and_used_once_it_is_not(postgres, url):
    with closing_database(url) as database:
        write(database)
        read_only(postgres, url, "on")
        administer(postgres, url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                  "WHERE datname = '{name}'")  # fmt: skip
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            write(database)
        read_only(postgres, url, "off")
        write(database)


def test_sessions_that_an_operator_ended_are_replaced(postgres, url):
    with closing_database(url) as database:
        write(database)
        administer(postgres, url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                  "WHERE datname = '{name}'")  # fmt: skip
        write(database)


def test_a_session_that_is_ended_during_a_transaction_costs_only_that_transaction(postgres, url):
    with closing_database(url) as database:
        with pytest.raises(DatabaseUnavailable):
            end_own_session(postgres, url, database)
        write(database)


def end_own_session(postgres, url, database):
    with database.transaction() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        administer(postgres, url, f"SELECT pg_terminate_backend({pid})")
        session.execute(text("SELECT 1"))


def test_the_standby_of_several_servers_is_passed_over(postgres, url, tmp_path):
    with Postgres(tmp_path / "other", durable=False) as standby:
        name = url.rpartition("/")[2]
        standby._execute(f"CREATE DATABASE {name}")
        standby._execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        hosts = f"host=127.0.0.1:{standby.port}&host=127.0.0.1:{postgres.port}"
        with closing_database(f"postgresql+psycopg://lumbar@/{name}?{hosts}") as database:
            write(database)
            with database.reading() as session:
                assert session.scalar(text("SHOW port")) == str(postgres.port)


def test_a_failover_to_a_streaming_standby_needs_no_restart(tmp_path):
    with Postgres(tmp_path / "first", durable=False) as first:
        name = first.migrated_database().rpartition("/")[2]
        with Postgres(tmp_path / "standby", durable=False, standby_of=first) as standby:
            hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in (first, standby))
            with closing_database(f"postgresql+psycopg://lumbar@/{name}?{hosts}") as database:
                write(database)
                first.stop_at_once()
                with pytest.raises(DatabaseUnavailable):
                    write(database)
                standby._execute("SELECT pg_promote()")
                write(database)


def test_statements_are_planned_for_their_values_and_none_is_prepared(url):
    """A prepared statement would get a generic plan after five executions."""
    with closing_database(url) as database:
        for number in range(20):
            with database.transaction() as session:
                session.execute(text("SELECT * FROM study WHERE id = :id"), {"id": number}).all()
                assert session.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0


def test_a_migration_under_a_running_service_does_not_break_its_statements(postgres, url):
    """PostgreSQL's 0A000: cached plan must not change result type."""
    with closing_database(url) as database:
        write(database)
        for change in (None, "ALTER TABLE written ADD COLUMN more text"):
            if change:
                with database.transaction() as session:
                    session.execute(text(change))
            for _ in range(10):
                with database.transaction() as session:
                    session.execute(text("SELECT * FROM written")).all()


def test_the_limits_hold_in_each_transaction_and_leave_no_trace_in_the_session(url):
    with closing_database(url) as database:
        with database.transaction() as session:
            assert session.scalar(text("SHOW statement_timeout")) == "1min"
            assert session.scalar(text("SHOW lock_timeout")) == "30s"
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            assert connection.scalar(text("SHOW statement_timeout")) == "0"


def test_tables_that_are_away_during_a_restore_are_waited_for(url):
    with closing_database(url) as database:
        missing = pytest.raises(DatabaseUnavailable, match="not as this version needs it")
        with missing, database.reading() as session:
            session.execute(text("SELECT * FROM gone"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("/test_", "/nothing_"), 'database "nothing_'),
        (("lumbar@", "nobody@"), 'role "nobody" does not exist'),
        (("127.0.0.1", "nowhere.invalid"), "nowhere.invalid"),
        (("lumbar@", "guarded:sesame@"), 'password authentication failed for user "guarded"'),
        (("lumbar@", "refused:sesame@"), "pg_hba.conf"),
    ],
    ids=["database", "user", "host", "password", "pg_hba"],
)
def test_what_is_wrong_with_the_url_is_named_in_one_line(guarded, url, change, said):
    wrong = Database.connect(url.replace(*change))
    try:
        for attempt in (
            lambda: write(wrong),
            lambda: schema.check(wrong),
            lambda: schema.upgrade(wrong),
        ):
            with pytest.raises(DatabaseUnavailable) as refused:
                attempt()
            assert said in str(refused.value)
            assert "LUMBAR_DATABASE_URL" in str(refused.value)
            assert "\n" not in str(refused.value)
            assert "sesame" not in str(refused.value)
    finally:
        wrong.close()


@pytest.fixture
def guarded(postgres):
    """Two users whom pg_hba.conf lets in by a password, or not at all."""
    postgres._execute("DROP ROLE IF EXISTS guarded, refused")
    postgres._execute("CREATE ROLE guarded LOGIN PASSWORD 'open'")
    postgres._execute("CREATE ROLE refused LOGIN")
    rules = postgres._cluster / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(
        "host all guarded 127.0.0.1/32 scram-sha-256\nhost all refused 127.0.0.1/32 reject\n"
        + before
    )
    postgres._execute("SELECT pg_reload_conf()")
    yield
    rules.write_text(before)
    postgres._execute("SELECT pg_reload_conf()")


def test_a_server_that_is_away_or_has_no_sessions_left_is_named(postgres, url):
    away = Database.connect(f"postgresql+psycopg://lumbar:sesame@127.0.0.1:{free_port()}/none")
    with pytest.raises(DatabaseUnavailable, match="Connection refused"):
        write(away)
    administer(postgres, url, "ALTER DATABASE {name} CONNECTION LIMIT 0")
    administer(postgres, url, "CREATE ROLE limited LOGIN")
    limited = Database.connect(url.replace("lumbar@", "limited@"))
    try:
        with pytest.raises(DatabaseUnavailable, match="too many connections"):
            write(limited)
    finally:
        limited.close()
        administer(postgres, url, "DROP ROLE limited")


def test_servers_in_the_form_of_libpq_are_refused_with_the_right_form():
    with pytest.raises(WrongSetting, match=r"host=a:5432&host=b:5432"):
        Database.connect("postgresql+psycopg://lumbar@a:5432,b:5432/name")


def stored_name(url):
    """A name that no other encoding holds, as this program's sessions write and read it."""
    with closing_database(url) as database:
        with database.transaction() as session:
            session.execute(text("CREATE TABLE named (name text)"))
            session.execute(text("INSERT INTO named VALUES (:name)"), {"name": "山田^太郎"})
        with database.reading() as session:
            assert session.scalar(text("SHOW client_encoding")) == "UTF8"
            return session.scalar(text("SELECT name FROM named"))


@pytest.mark.parametrize("through", ["PostgreSQL", "PgBouncer"])
def test_sessions_speak_utf8_whatever_a_database_or_the_url_says(postgres, url, through, tmp_path):
    administer(postgres, url, "ALTER DATABASE {name} SET client_encoding = 'LATIN1'")
    if through == "PostgreSQL":
        assert stored_name(f"{url}?client_encoding=latin1") == "山田^太郎"
        return
    with PgBouncer(tmp_path / "pgbouncer", postgres) as pgbouncer:
        assert stored_name(pgbouncer.url(url)) == "山田^太郎"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_name_is_named(postgres, encoding):
    name = f"in_{encoding.lower()}"
    postgres._execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' "
        "TEMPLATE template0"
    )
    with closing_database(postgres.url(name)) as database:
        message = rf"{name} has the encoding {encoding}.*ENCODING 'UTF8'"
        with pytest.raises(DatabaseUnavailable, match=message):
            schema.upgrade(database)
        with pytest.raises(DatabaseUnavailable, match=message), database.transaction():
            write(database)
