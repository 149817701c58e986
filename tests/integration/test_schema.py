"""The migrations make the tables, and a database of another schema is refused."""

import pytest

from db import schema
from db.session import Database, DatabaseAway
from db.site import Site
from lumbar.errors import Permanent, WrongSetting
from lumbar.settings import Settings
from tests.peers import free_port


def test_the_migrations_make_just_the_tables_of_the_code(database):
    assert schema.differences(database) == []


def test_an_upgrade_twice_is_no_harm(database):
    assert schema.upgrade(database) == schema.newest()


def test_an_empty_database_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(Permanent, match="run `lumbar db upgrade`"):
        Site.open(Settings(home=tmp_path))


def test_a_database_that_is_away_is_said_as_such():
    away = Database.connect(f"postgresql+psycopg://lumbar:secret@127.0.0.1:{free_port()}/none")
    with pytest.raises(DatabaseAway, match="is it running") as error:
        schema.upgrade(away)
    assert "secret" not in str(error.value)


def test_a_url_that_is_none_names_its_setting():
    with pytest.raises(WrongSetting, match="LUMBAR_DATABASE_URL"):
        Database.connect("somewhere")
