"""Settings: their sources, and errors that name the wrong one."""

from zoneinfo import ZoneInfo

import pytest

from db import schema
from lumbar.errors import WrongSetting
from lumbar.settings import Settings
from tests.system import closing_database

NUMBERS = {
    name: field for name, field in Settings.model_fields.items() if field.annotation in (int, float)
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LUMBAR_PORT", "eleven", "LUMBAR_PORT"),
        ("LUMBAR_PORT", "70000", "LUMBAR_PORT"),
        ("LUMBAR_AE_TITLE", "A TITLE OF MORE THAN 16", "LUMBAR_AE_TITLE"),
        ("LUMBAR_QUIET_S", "-1", "LUMBAR_QUIET_S"),
        ("LUMBAR_DESTINATIONS", "pacs", "destinations"),
        ("LUMBAR_DESTINATIONS", '{"pacs": "ftp://pacs"}', "pacs"),
        ("LUMBAR_DESTINATIONS", '{"": "dicom://PACS@pacs:104"}', "name"),
        ("LUMBAR_LOG_FORMAT", "xml", "LUMBAR_LOG_FORMAT"),
        ("LUMBAR_AE_TITLE", "   ", "LUMBAR_AE_TITLE"),
        ("LUMBAR_KNOWN_AES", "MR1,A TITLE OF MORE THAN 16", "LUMBAR_KNOWN_AES"),
        ("LUMBAR_TIME_ZONE", "Europe/Atlantis", "LUMBAR_TIME_ZONE: .* is not an IANA time zone"),
        ("LUMBAR_TIME_ZONE", "../etc/passwd", "LUMBAR_TIME_ZONE"),
        ("LUMBAR_TIME_ZONE", "Europe", "LUMBAR_TIME_ZONE"),
        ("LUMBAR_WEB_ROOT", "/../triage", "LUMBAR_WEB_ROOT: .* such as /triage"),
        ("LUMBAR_WEB_ROOT", "https://triage.example", "LUMBAR_WEB_ROOT"),
        ("LUMBAR_WEB_ROOT", "/tri age", "LUMBAR_WEB_ROOT"),
        ("LUMBAR_WEB_ORIGIN", "triage.example", "LUMBAR_WEB_ORIGIN"),
        ("LUMBAR_WEB_ORIGIN", "https://triage.example/triage", "a path belongs in web_root"),
        ("LUMBAR_DESTINATION", "{}", "did you mean LUMBAR_DESTINATIONS"),
    ],
)
def test_a_wrong_value_stops_start_up_and_names_its_setting(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(WrongSetting, match=message) as wrong:
        Settings.load()
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e300", "9" * 30])
@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_infinite_or_absurd(monkeypatch, name, value):
    monkeypatch.setenv(f"LUMBAR_{name.upper()}", value)
    with pytest.raises(WrongSetting, match=f"LUMBAR_{name.upper()}: "):
        Settings.load()


@pytest.mark.parametrize("name", ["keep_days", "worklist_days"])
@pytest.mark.parametrize("value", ["inf", "1e9"])
def test_who_writes_an_infinity_of_days_is_told_what_to_write(monkeypatch, name, value):
    monkeypatch.setenv(f"LUMBAR_{name.upper()}", value)
    with pytest.raises(WrongSetting, match=r"\(0 keeps .* until"):
        Settings.load()


def test_an_infinity_in_the_file_is_refused(tmp_path):
    (tmp_path / "lumbar.toml").write_text("sweep_every_s = inf\n")
    with pytest.raises(WrongSetting, match="LUMBAR_SWEEP_EVERY_S: Input should be a finite"):
        Settings.load()


def test_an_unknown_setting_in_the_file_is_named(tmp_path):
    (tmp_path / "lumbar.toml").write_text("prot = 104\n")
    with pytest.raises(WrongSetting, match="PROT"):
        Settings.load()


TOML = 'port = 104\nae_title = "FILE"\n# Zürich\n'


@pytest.mark.parametrize("content", [TOML.encode("utf-8-sig"), TOML.replace("\n", "\r\n").encode()])
def test_the_file_may_have_a_byte_order_mark_and_windows_line_ends(tmp_path, content):
    (tmp_path / "lumbar.toml").write_bytes(content)
    settings = Settings.load()
    assert (settings.port, settings.ae_title) == (104, "FILE")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TOML.encode("latin-1"), r"lumbar.toml is not UTF-8 \(line 3\); save it as UTF-8"),
        (TOML.encode("utf-16"), "lumbar.toml is not UTF-8 .*; save it as UTF-8"),
        ("port = 104".encode("utf-16-le"), "lumbar.toml is not TOML: .* save it as UTF-8"),
        (b"port: 104", "lumbar.toml is not TOML: .*line 1"),
        (b"\x7fELF\0\0", "lumbar.toml is not TOML"),
        (b"port = 104\nport = 105", "lumbar.toml is not TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "lumbar.toml").write_bytes(content)
    with pytest.raises(WrongSetting, match=message) as wrong:
        Settings.load()
    assert str(wrong.value).isprintable()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.mkdir(), "lumbar.toml cannot be read: Is a directory"),
        (
            lambda file: file.symlink_to("away.toml"),
            "lumbar.toml is a link to a file that does not",
        ),
        (lambda file: file.symlink_to(file), "lumbar.toml cannot be read: Too many levels"),
    ],
)
def test_what_cannot_be_read_as_a_file_is_not_overlooked(tmp_path, make, message):
    make(tmp_path / "lumbar.toml")
    with pytest.raises(WrongSetting, match=message):
        Settings.load()


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "lumbar.toml").write_text("port = 104\n")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)  # root may read everything
    with pytest.raises(WrongSetting, match=r"lumbar.toml cannot be read: Permission denied"):
        Settings.load()


def test_the_environment_takes_precedence_over_the_file(monkeypatch, tmp_path):
    (tmp_path / "lumbar.toml").write_text('port = 104\nae_title = "FILE"\n')
    monkeypatch.setenv("LUMBAR_PORT", "105")
    settings = Settings.load()
    assert (settings.port, settings.ae_title) == (105, "FILE")


def test_destinations_of_the_environment_replace_those_of_the_file(monkeypatch, tmp_path):
    (tmp_path / "lumbar.toml").write_text('[destinations]\npacs = "dicom://PACS@pacs:104"\n')
    assert list(Settings.load().destinations) == ["pacs"]
    monkeypatch.setenv("LUMBAR_DESTINATIONS", '{"archive": "dicom://ARCHIVE@archive:104"}')
    assert list(Settings.load().destinations) == ["archive"]


def test_known_senders_are_a_comma_separated_list(monkeypatch):
    monkeypatch.setenv("LUMBAR_KNOWN_AES", "MR1, MR2")
    assert Settings.load().known_aes == ("MR1", "MR2")


def test_private_classes_are_a_comma_separated_list_of_uids(monkeypatch):
    monkeypatch.setenv("LUMBAR_EXTRA_SOP_CLASSES", "1.3.12.2.1107.5.9.1, 1.3.46.670589.2.4.1.1")
    assert Settings.load().extra_sop_classes == ("1.3.12.2.1107.5.9.1", "1.3.46.670589.2.4.1.1")


@pytest.mark.parametrize("uid", ["CSA", "1.3.", "1..3", "1.03", "1.3.12/7", f"1.{'3' * 63}", "1"])
def test_a_private_class_that_is_no_uid_is_named(monkeypatch, uid):
    monkeypatch.setenv("LUMBAR_EXTRA_SOP_CLASSES", f"1.3.12.2.1107.5.9.1,{uid}")
    with pytest.raises(WrongSetting, match=rf"LUMBAR_EXTRA_SOP_CLASSES: .*'{uid}' is not a UID"):
        Settings.load()


def test_an_unset_destination_is_named_with_those_that_are_known(monkeypatch):
    monkeypatch.setenv("LUMBAR_DESTINATIONS", '{"pacs": "dicom://PACS@pacs:104"}')
    with pytest.raises(WrongSetting, match=r"'archive' \(known: pacs\)"):
        Settings.load().destination("archive")


def test_the_sites_time_zone_is_the_machines_until_it_is_set(monkeypatch):
    assert Settings.load().zone is None
    monkeypatch.setenv("LUMBAR_TIME_ZONE", "Europe/Berlin")
    assert Settings.load().zone == ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize("written", ["/triage", "triage", "/triage/", "//triage//"])
def test_a_path_prefix_may_be_written_with_and_without_slashes(monkeypatch, written):
    monkeypatch.setenv("LUMBAR_WEB_ROOT", written)
    assert Settings.load().web_root == "/triage"
    monkeypatch.setenv("LUMBAR_WEB_ROOT", "/")
    assert Settings.load().web_root == ""


@pytest.mark.parametrize("name", ["a?b=c", "50% full", "a%20b", "#1", "a:b@c", "Köln"])
def test_a_home_may_have_any_name(tmp_path, name):
    home = tmp_path / name
    with closing_database(Settings(home=home).effective_database_url) as database:
        schema.upgrade(database)
    assert (home / "lumbar.sqlite").stat().st_size
    assert [folder.name for folder in tmp_path.iterdir()] == [name]


def test_a_tilde_is_the_users_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LUMBAR_HOME", "~/triage")
    monkeypatch.setenv("LUMBAR_BUNDLE", "~/bundle")
    settings = Settings.load()
    assert (settings.home, settings.bundle) == (tmp_path / "triage", tmp_path / "bundle")


def test_a_tilde_of_no_user_is_named(monkeypatch):
    monkeypatch.setenv("LUMBAR_HOME", "~nobody-of-that-name/triage")
    with pytest.raises(WrongSetting, match=r"LUMBAR_HOME: .*no such user"):
        Settings.load()
