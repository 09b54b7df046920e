"""lockkit guard check on a database, a folder, and failures. Other resources: tests/guard, tests/backends."""

from __future__ import annotations

import json
import sqlite3

import pytest

from lockkit.cli.main import run
from lockkit.cli.schemas import SCHEMAS
from lockkit.guard import on_file, on_sql

jsonschema = pytest.importorskip("jsonschema")

CHECKS = ["older", "newer", "stale-write", "stale-after-write", "stale-open", "kept"]


@pytest.fixture
def app(tmp_path):
    file = tmp_path / "app.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE mine (id INTEGER)")
    connection.close()
    return file


def tables(file):
    connection = sqlite3.connect(file)
    try:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    finally:
        connection.close()


@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite://{}", "sqlite+pysqlite:///{}"])
def test_a_database_that_refuses_is_shown_and_left_as_it_was(lockkit, app, form):
    if "+" in form:
        pytest.importorskip("sqlalchemy")
    done = lockkit("guard", "check", form.format(app))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\nok ") == len(CHECKS)
    assert done.stdout.endswith("a stale fence is refused; the scratch is removed\n")
    assert tables(app) == ["mine"]


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}"])
def test_a_folder_that_refuses_is_shown_and_left_as_it_was(lockkit, tmp_path, form):
    folder = tmp_path / "reports"
    folder.mkdir()

    done = lockkit("guard", "check", form.format(folder), "--json")

    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMAS["guard-check"]).validate(document)
    assert (done.returncode, document["ok"]) == (0, True)
    assert [one["check"] for one in document["checks"]] == CHECKS
    assert list(folder.iterdir()) == []


def not_compared(monkeypatch):
    monkeypatch.setattr(on_file, "judged", lambda stored, asked: "APPLY")
    monkeypatch.setattr(on_sql.SqlGate, "check", lambda self, lease: None)
    monkeypatch.setattr(
        on_sql.SqlGate,
        "write",
        lambda self, lease, columns: self._database.run(
            f"UPDATE {self._table} SET value = :value WHERE {self._row}", {**self._key, **columns}
        ),
    )


def test_a_resource_that_accepts_a_stale_fence_ends_with_1(monkeypatch, capsys, app, tmp_path):
    not_compared(monkeypatch)

    assert run(["guard", "check", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "\nFAILED it accepts a write of fence 1, after fence 2 has opened it\n" in told.out
    assert "does not keep out a stale holder" in told.err
    assert [path.name for path in tmp_path.iterdir()] == ["app.db"]

    assert run(["guard", "check", f"sqlite:{app}", "--json"]) == 1
    told = capsys.readouterr()
    assert [one["ok"] for one in json.loads(told.out)["checks"]][2:4] == [False, False]
    assert json.loads(told.err)["error"] == "unguarded"
    assert tables(app) == ["mine"]


@pytest.mark.parametrize(
    "resource, code, told",
    [
        ("nothing", 78, "write one of sqlite:"),
        ("ftp://host", 78, "write one of sqlite:"),
        ("sqlite:/no/such/file.db", 78, "name an existing file"),
        ("file:/no/such/folder/x", 69, "No such file"),
        ("redis://user:hunter2@127.0.0.1:1", 69, "Connection refused"),
        ("etcd://user:hunter2@127.0.0.1:1", 69, "Connection refused"),
        ("etcd://127.0.0.1:1/x", 78, "etcd has no databases"),
        ("redis+x://", 78, "SQLAlchemy"),
        ("sqlite:", 78, "give an existing file: sqlite:/path/to/app.db"),
    ],
)
def test_what_cannot_be_checked_is_named(lockkit, resource, code, told):
    pytest.importorskip("redis")
    pytest.importorskip("sqlalchemy")
    done = lockkit("guard", "check", resource, "--json")

    error = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, error["exit_code"]) == (code, code)
    assert told in f"{error['message']} {error['hint']}"
    assert "hunter2" not in done.stdout + done.stderr


def test_a_library_that_is_missing_is_named_with_its_install(monkeypatch, capsys):
    from lockkit.guard import scratch

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(scratch, "import_module", missing)

    assert run(["guard", "check", "zookeeper://127.0.0.1:1"]) == 78
    assert 'pip install "lockkit[zookeeper]"' in capsys.readouterr().err


def test_the_group_explains_itself(lockkit):
    done = lockkit("guard")

    assert done.returncode == 64
    assert "compares it" in done.stdout
