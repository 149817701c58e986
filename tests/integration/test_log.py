"""The log of a process: each event is one line, and no value is logged, whatever is raised."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MARKER = "DOE^JOHN"
ROOT = Path(__file__).parent.parent.parent

BEFORE = f"""
import logging, sys, threading, warnings
import structlog
from lumbar.errors import Permanent, Transient
from lumbar.log import configure
configure(sys.argv[1])
log = structlog.get_logger()
marker = "{MARKER}"
"""

OF_AN_EXCEPTION = {
    "an error of this project, logged with its text": (
        "raise Permanent('no destination is called pacs')",
        "why",
        "no destination is called",
    ),
    "Python's": ("raise ValueError(f'bad name {marker}')", "error", "builtins.ValueError"),
    "of several lines": (
        "raise ValueError(f'bad\\n{marker}\\nname')",
        "error",
        "builtins.ValueError",
    ),
    "one of ours because of a library's": (
        """
    try:
        raise KeyError(marker)
    except KeyError as cause:
        raise Transient('the disk is unavailable') from cause
""",
        "error",
        "lumbar.errors.Transient < builtins.KeyError",
    ),
}

ELSEWHERE = {
    "a library's values": ("logging.getLogger('kombu').error('cannot %s', marker)", "cannot %s"),
    "a library's text with values in it": (
        "logging.getLogger('pynetdicom').error(f'{marker}\\n{marker}')",
        "library=pynetdicom",
    ),
    "a library's exception as a message": (
        "logging.getLogger('pynetdicom').exception(ValueError(marker))",
        "library=pynetdicom",
    ),
    "a record that cannot be rendered": ("logging.getLogger('a').error('%d', marker)", "library=a"),
    "a library's warning": (
        "warnings.warn(f'bad value {marker}', stacklevel=1)",
        "category=UserWarning",
    ),
    "the end of a thread": (
        "t = threading.Thread(target=int, args=(marker,)); t.start(); t.join()",
        "event=thread.fault",
    ),
    "the end of the process": ("raise ValueError(marker)", "event=process.fault"),
    "the end of an object": (
        "class Ends:\n    def __del__(self): raise ValueError(marker)\nEnds()",
        "event=object.fault",
    ),
    "a field of several lines": ("log.info('x', why='a\\nb\\x1b[31m\\u2028\\u202ec')", "event=x"),
}

IN_A_TASK = """
from db.models import JobKind
from types import SimpleNamespace
from lumbar.settings import Settings
from worker.celery_app import NAMES, bind, create_app
from worker.consumer import Consumer
app = create_app(Settings(broker_url="redis://127.0.0.1:1/0"))
def fails():
    raise ValueError(f"{marker}\\n{marker}")
bind(app, {JobKind.ANALYSE: fails})
message = SimpleNamespace(headers={"task": NAMES[JobKind.ANALYSE]})
Consumer.create_task_handler(SimpleNamespace(app=app))(message)
logging.getLogger("celery.worker").error("said %s", marker)
logging.getLogger("celery.task").error("said %s", marker)
warnings.warn(marker)
"""

DATABASE = """
import os
from sqlalchemy import create_engine, text
from db.database import Database
database = Database.connect(os.environ["URL"])
twice = text(
    "INSERT INTO patient (issuer, patient_identifier, name, birth_date, sex) "
    "VALUES ('A', :p, 'x', '', '')"
)
for log_error in (
    lambda: log.exception("db.fault"),
    lambda: logging.getLogger("sqlalchemy").exception("failed for %s", marker),
):
    try:
        with database.engine.begin() as connection:
            connection.execute(twice, {"p": marker})
            connection.execute(twice, {"p": marker})
    except Exception as error:
        assert marker in str(error)
        log_error()
    try:
        with database.transaction() as session:
            session.execute(twice, {"p": marker})
            session.execute(twice, {"p": marker})
    except Transient:
        log_error()
database.close()
"""


def lines_of(code, form="console", **environment):
    """The lines that a process running this code logs, none with the marker."""
    command = [sys.executable, "-W", "default", "-c", BEFORE + code, form]
    completed = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), **environment},
    )
    assert MARKER not in completed.stdout + completed.stderr
    assert "Traceback" not in completed.stderr
    return completed.stderr.split("\n")[:-1]


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("name", OF_AN_EXCEPTION)
def test_an_exception_is_logged_by_its_type_and_locations(name, form):
    code, field, text = OF_AN_EXCEPTION[name]
    (line,) = lines_of(
        f"def fail():\n    {code}\n"
        "try:\n    fail()\nexcept Exception:\n    log.exception('x.fault')",
        form,
    )
    if form == "json":
        event = json.loads(line)
        assert (event["event"], event["level"]) == ("x.fault", "error")
        assert event[field].startswith(text)
        assert event["at"].startswith("<string>:")
        assert event["at"].endswith(" fail")
    else:
        assert "event=x.fault" in line
        assert text in line


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_logger_writes_one_line_without_values(name):
    code, text = ELSEWHERE[name]
    (line,) = lines_of(code)
    assert text in line
    assert line.isprintable()


def test_a_failed_celery_task_is_logged_in_one_line_without_values():
    lines = lines_of(IN_A_TASK)
    speakers = [line.split("library=")[-1].split()[0] for line in lines[1:3]]
    assert speakers == ["celery.worker", "celery.task"]
    assert "event=task.fault error=builtins.ValueError" in lines[0]
    assert "category=UserWarning" in lines[3]
    assert len(lines) == 4


@pytest.mark.postgresql
def test_a_database_error_that_quotes_a_value_is_logged_in_one_line_without_it(postgres):
    lines = lines_of(DATABASE, URL=postgres.migrated_database())
    assert len(lines) == 4
    assert all("psycopg.errors.UniqueViolation" in line for line in lines)


def test_a_full_disk_under_standard_error_loses_the_line_and_nothing_else():
    program = (
        "from lumbar import log\n"
        "log.configure('logfmt')\n"
        "log.get_logger().error('instance.refused', why='the disk is full')\n"
        "print('went on')\n"
    )
    with open("/dev/full", "w") as full:  # noqa: PTH123 - not a path of ours
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True
        )
    assert done.stdout == "went on\n"


def test_a_closed_standard_error_loses_the_log_and_nothing_else():
    program = (
        "from lumbar import log\n"
        "log.configure('logfmt')\n"
        "log.get_logger().error('instance.refused', why='the disk is full')\n"
        "print('went on')\n"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("went on\n", 0)
