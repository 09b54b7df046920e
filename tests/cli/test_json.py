"""Every JSON document fits its published schema, and the schemas name every property."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from lockkit.cli import documents
from lockkit.cli.docs import files
from lockkit.cli.schemas import SCHEMAS

jsonschema = pytest.importorskip("jsonschema")
DOCS = Path(__file__).parents[2] / "docs"


def check(document: dict) -> dict:
    name, _, version = document["schema"].removeprefix("lockkit.").partition("/")
    assert version == "1"
    schema = SCHEMAS[name]
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    validator.validate(document)
    unknown = set(document) - set(schema["properties"])
    if name == "log":
        unknown = set()  # a record has properties of its own
    assert not unknown, f"not in the schema: {unknown}"
    return document


@pytest.mark.parametrize("name", sorted(files()))
def test_what_is_made_from_the_code_is_up_to_date(name):
    assert (DOCS / name).read_text(encoding="utf-8") == files()[name], "run: python -m lockkit.cli.docs"


def kinds(of):
    for kind in of.__subclasses__():
        yield from (kind, *kinds(kind))


def test_every_document_that_can_be_printed_has_a_schema_of_all_its_fields():
    for document in kinds(documents.Document):
        tag = document.__struct_config__.tag
        if tag.startswith("lockkit.") and document.__module__ != "lockkit.server.documents":
            schema = SCHEMAS[tag.removeprefix("lockkit.").removesuffix("/1")]
            assert list(schema["properties"]) == ["schema", *document.__struct_fields__]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_schema_is_a_schema(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


LINES = (
    "status",
    "status x",
    "explain x",
    "plugins",
    "config show",
    "config check",
    "doctor",
    "docs",
    "docs all-users",
    "failures list",
    "recover",
    "wait nobody",
    "resize nobody 1",
)


def test_documents_fit_their_schemas(lockkit):
    lockkit.holder("x")
    waiter = lockkit.start("run", "x", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    for line in LINES:
        check(lockkit.json(*line.split()))
    waiter.send_signal(signal.SIGINT)
    waiter.communicate(timeout=40)


def test_documents_of_a_hold_across_commands(lockkit):
    taken = check(lockkit.json("acquire", "x", "--ttl", "1m"))
    assert check(lockkit.json("held", "x"))["claims"] == [
        {"claim_id": taken["claim_id"], "fence": taken["fence"]}
    ]
    assert check(lockkit.json("release", "x"))["release"]["outcome"] == "RELEASED"
    not_held = lockkit("held", "x", "--json")
    assert (not_held.returncode, check(json.loads(not_held.stdout))["held"]) == (1, False)
    check(json.loads(lockkit("release", "x", "--json").stderr))


def test_the_documents_of_a_run(lockkit):
    lockkit("run", "x", "--report", "report", "--", "true")
    report = check(json.loads((lockkit.folder / "report").read_text()))
    assert (report["exit_code"], report["release"]["outcome"]) == (0, "RELEASED")
    holder = lockkit.holder("x", "sleep", "--ttl", "3s", "--json", "--report", "report")
    waiting, error = lockkit("run", "x", "--json", "--timeout", "2s", "--", "true").stderr.splitlines()
    assert check(json.loads(waiting))["position"] == 1
    assert check(json.loads(error))["exit_code"] == 124
    (claim,) = lockkit.claims("x")
    check(lockkit.json("evict", "x", "--claim", claim["claim_id"], "--reason", "test"))
    _, err = holder.communicate(timeout=40)
    told = [check(json.loads(line)) for line in err.splitlines() if line.startswith("{")]
    assert [one["schema"] for one in told][-1] == "lockkit.error/1"
    assert "lockkit.notice/1" in {one["schema"] for one in told}
    check(json.loads((lockkit.folder / "report").read_text()))


@pytest.mark.parametrize("more", ["", "?synchronous=full"])
def test_the_store_has_its_path_in_json_as_in_text(lockkit, more):
    """And the URL is one that can be used."""
    lockkit.env["LOCKKIT_STATE_DIR"] = str(lockkit.folder / "with blank")
    url = f"sqlite:{lockkit.folder}/with%20blank/lockkit.db{more}"
    line = ["--url", f"sqlite:{more}"] if more else []

    for command in (["status"], ["doctor"], ["explain", "x"], ["wait", "x"]):
        store = lockkit.json(*command, *line)["store"]
        assert store["url"] == url
    assert f"store: {url} (from " in lockkit("status", *line).stdout
    assert lockkit.json("status", "--url", store["url"])["store"]["url"] == url


def test_status_watch_is_one_document_a_line(lockkit):
    watcher = lockkit.start("status", "--watch", "--interval", "100ms", "--json")
    lines = [watcher.stdout.readline() for _ in range(3)]
    assert [check(json.loads(line))["locks"] for line in lines] == [[], [], []]
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(timeout=40) == 0


def test_times_are_told_twice_and_tokens_never(lockkit):
    lockkit.holder("x")
    (claim,) = lockkit.claims("x")
    assert abs(claim["since_seconds"] - time.time()) < 30
    assert claim["since"].endswith("Z")
    assert "token" not in json.dumps(claim)


def test_with_json_every_line_on_stderr_is_json(lockkit):
    lockkit.holder("x")
    (claim,) = lockkit.claims("x")
    wrong = {"LOCKKIT_NONSENSE": "1"}
    evict = ["evict", "x", "--claim", claim["claim_id"], "--reason", "test", "--json"]
    for line in (["status", "--json"], ["run", "y", "--json", "--", "true"], evict):
        (warning,) = lockkit(*line, env=wrong).stderr.splitlines()
        assert "LOCKKIT_NONSENSE" in check(json.loads(warning))["message"]
    (lockkit.folder / "lockkit.toml").write_text('log_format = "json"\n')
    check(json.loads(lockkit("status", env=wrong).stderr))


@pytest.mark.parametrize(
    "line",
    [["run", "x", "--report", "report", "--", "true"], ["acquire", "x", "--ttl", "1m"]],
    ids=["run", "acquire"],
)
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_a_wait_is_told_as_json(lockkit, line, number, code):
    lockkit.holder("x")
    waiter = lockkit.start(*line[:2], "--json", *line[2:])
    check(json.loads(waiter.stderr.readline()))  # it waits, and has imported what writes documents
    waiter.send_signal(number)
    _, err = waiter.communicate(timeout=40)
    *_, error = [check(json.loads(row)) for row in err.splitlines()]
    assert (waiter.returncode, error["exit_code"], error["name"]) == (code, code, "x")
    assert (error["message"], error["hint"]) == (f"{signal.Signals(number).name} while waiting for 'x'", None)
    if line[0] == "run":
        report = check(json.loads((lockkit.folder / "report").read_text()))
        assert report["error"] == error


def test_a_release_that_is_not_confirmed_is_told_as_json(lockkit):
    wrapper = lockkit.start(
        "run", "x", "--json", "--", "sh", "-c", "touch runs; until [ -e end ]; do sleep 0.05; done"
    )
    lockkit.until((lockkit.folder / "runs").exists)
    with sqlite3.connect(lockkit.folder / "state" / "lockkit.db") as store:
        store.execute("BEGIN EXCLUSIVE")
        (lockkit.folder / "end").touch()
        _, err = wrapper.communicate(timeout=40)
    told = [check(json.loads(row)) for row in err.splitlines()]
    (notice,) = [one for one in told if one["schema"] == "lockkit.notice/1"]
    assert "was not confirmed" in notice["message"]


def test_logs_can_be_json(lockkit):
    (lockkit.folder / "lockkit.toml").write_text('log_format = "json"\n')
    holder = lockkit.holder("x", "sleep", "--ttl", "1500ms")
    (claim,) = lockkit.claims("x")
    lockkit("evict", "x", "--claim", claim["claim_id"], "--reason", "test")
    _, err = holder.communicate(timeout=40)
    logged = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert logged
    assert {one["schema"] for one in logged} == {"lockkit.log/1"}
    schema = SCHEMAS["log"]
    for one in logged:
        jsonschema.validate(one, schema)


def test_the_documents_of_host_and_recover(lockkit, tmp_path):
    config = ["--config", str(tmp_path / "etc.toml")]
    folder = ["--folder", str(tmp_path / "shared")]
    check(lockkit.json("host", "init", "--group", "0", *folder, *config, "--dry-run"))
    check(lockkit.json("host", "remove", *config, "--dry-run"))
    check(json.loads(lockkit("host", "show", *config, "--json").stdout))
    (lockkit.folder / "lockkit.toml").write_text('age_warning = "1ms"\nage_soft = "2ms"\nage_hard = "3ms"\n')
    lockkit.holder("x")
    time.sleep(0.01)  # the age itself
    (case,) = check(lockkit.json("recover"))["cases"]
    assert (case["kind"], case["tier"], case["claim"]["name"]) == ("overdue", "hard", "x")
