"""``history``, ``report`` and ``audit``: the contents and gaps of a journal, and violations in it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time

import pytest

import lockkit as library
from lockkit.config.store_names import name_of
from support.forked import completed

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture
def environment(tmp_path):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
    return kept | {
        "LOCKKIT_STATE_DIR": str(tmp_path / "state"),
        "LOCKKIT_JOURNAL": "1",
        "LOCKKIT_CONFIG": "/dev/null",
    }


@pytest.fixture
def call(environment):
    def run(*words, code=0, **more):
        done = completed([sys.executable, "-m", "lockkit", *words], env=environment | more)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    return run


def events(tmp_path):
    return tmp_path / "state" / "journal" / "events.jsonl"


def document(text):
    from lockkit.cli.schemas import SCHEMAS

    read = json.loads(text)
    name = read["schema"].removeprefix("lockkit.").removesuffix("/1")
    jsonschema.Draft202012Validator(SCHEMAS[name]).validate(read)
    return read


def test_a_loss_is_told_in_words(call, environment, tmp_path):
    program = "import lockkit; lockkit.connect().lock('x').acquire().simulate_loss()"
    completed([sys.executable, "-W", "ignore", "-c", program], env=environment)
    assert "lost: it was not renewed in time" in call("history").stdout

    rows = events(tmp_path).read_text()
    assert '"reason": "lapsed"' in rows
    events(tmp_path).write_text(rows.replace('"reason": "lapsed"', '"reason": "lost"'))
    assert "lost: it was not renewed in time" in call("history").stdout


def test_without_a_journal_history_says_how_to_turn_it_on(call):
    for command in ("history", "report", "audit"):
        told = call(command, code=65 if command == "audit" else 1, LOCKKIT_JOURNAL="0").stderr
        assert "there is no event journal" in told
        assert "LOCKKIT_JOURNAL=1" in told
        assert "journal = true" in told


def test_a_run_is_in_the_history_the_report_and_the_audit(call):
    call("run", "backup", "--", "true")
    call("run", "other", "--", "true")
    shown = call("history", "backup").stdout
    assert "backup" in shown
    assert "released" in shown
    assert "other" not in shown
    read = document(call("history", "--json").stdout)
    assert [hold["name"] for hold in read["holds"]] == ["backup", "other"]
    (use, _) = sorted(document(call("report", "--json").stdout)["uses"], key=lambda use: use["name"])
    assert (use["name"], use["holds"], use["in_vain"]) == ("backup", 1, 0)
    assert call("audit").stdout.startswith(
        "exclusion held: 2 grants, 2 locks, 0 overlaps, fences rose, 0 lapses\n"
    )
    assert document(call("audit", "--json").stdout)["verdict"] == "held"
    assert "a process whose journal was off, or could not be written, may be in none" in call("audit").stdout


def test_a_refused_run_is_a_wait_in_vain(call, environment, monkeypatch):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with library.connect() as client, client.lock("a").acquire():
        call("run", "a", "--no-wait", "--", "true", code=75)
    (wait,) = document(call("history", "a", "--json").stdout)["waits"]
    assert wait["outcome"] == "busy"
    assert f"pid {os.getpid()}" in wait["holder"]


def test_since_leaves_out_what_was_over(call, tmp_path):
    call("run", "old", "--", "true")
    rows = [json.loads(row) for row in events(tmp_path).read_text().splitlines() if row]
    events(tmp_path).write_text("".join(f"{json.dumps(row | {'at': row['at'] - 7200})}\n" for row in rows))
    call("run", "new", "--", "true")
    read = document(call("history", "--since", "1h", "--json").stdout)
    assert [hold["name"] for hold in read["holds"]] == ["new"]


def test_a_violation_that_is_put_into_a_journal_is_found_and_both_holds_are_named(call, tmp_path):
    call("run", "a", "--", "true")
    call("run", "a", "--", "true")
    rows = [json.loads(row) for row in events(tmp_path).read_text().splitlines() if row]
    grants = [row for row in rows if row["kind"] == "acquired"]
    first = next(row for row in rows if row["kind"] == "released" and row["claim"] == grants[0]["claim"])
    first["until"] = grants[1]["boottime"] + 0.25
    events(tmp_path).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told = call("audit", code=1).stdout
    assert told.startswith("EXCLUSION WAS VIOLATED: 2 grants, 1 lock, 1 overlap")
    for grant in grants:
        assert grant["claim"] in told
        assert f"pid {grant['pid']}" in told
    read = document(call("audit", "--json", code=1).stdout)
    assert [len(one["holds"]) for one in read["violations"]] == [2]


def test_with_a_row_missing_the_audit_does_not_say_that_exclusion_held(call, tmp_path):
    call("run", "a", "--", "true")
    rows = [row for row in events(tmp_path).read_text().splitlines() if row]
    events(tmp_path).write_text("\n".join(rows[:1] + rows[2:]))
    told = call("audit", code=65).stdout
    assert "held:" not in told
    assert "1 row of a journal is missing" in told


def row(host, number, kind, claim="", at=0.0, **more):
    """A row of a journal of a host that is not this one, on a store of a fleet."""
    about = {
        "store": "redis://box",
        "scope": "fleet",
        "namespace": "default",
        "user": "ann",
        "host": host,
        "pid": 7,
    }
    told = {"v": 1, "writer": host, "n": number, "kind": kind, "name": "a", "claim": claim, "at": at}
    return about | told | {"boot": f"boot of {host}", "boottime": at} | more


def hold(host, claim, fence, began, ended):
    """The rows of a client that has held once, and was closed."""
    rows = [
        ("acquired", began, {"fence": fence}),
        ("released", ended, {"fence": fence, "until": ended}),
        ("closed", ended, {}),
    ]
    return [row(host, number, kind, claim, at, **more) for number, (kind, at, more) in enumerate(rows)]


@pytest.fixture
def journal(tmp_path):
    def write(*rows, more=""):
        path = tmp_path / "written.jsonl"
        path.write_text("".join(f"{json.dumps(each)}\n" for each in rows) + more)
        return str(path)

    return write


ONE, TWO = "000000000001", "000000000002"


def test_holds_of_two_hosts_are_undecidable_within_the_skew_and_a_violation_beyond_it(call, journal):
    path = journal(*hold("one", ONE, 1, 1000.0, 1000.3), *hold("two", TWO, 2, 1000.1, 1001.0))
    told = call("audit", path, code=65).stdout
    assert told.startswith(
        "undecidable: 2 grants, 1 lock, 0 overlaps, fences rose, 0 lapses, 1 undecidable\n"
    )
    assert "1 holds may have overlapped" not in told
    assert "a hold may have overlapped with another" in told
    assert "closer together than 0.5 s" in told
    assert document(call("audit", path, "--json", code=65).stdout)["verdict"] == "undecidable"
    told = call("audit", path, "--max-skew", "100ms", code=1).stdout
    assert told.startswith("EXCLUSION WAS VIOLATED: 2 grants")
    assert "boot of one"[:8] in told
    read = document(call("audit", path, "--max-skew", "0", "--json", code=1).stdout)
    assert (read["verdict"], read["max_skew_seconds"]) == ("violated", 0.0)
    assert [each["seconds"] for each in read["violations"]] == pytest.approx([0.2])
    assert "max-skew" in call("audit", path, "--max-skew", "-1s", code=64).stderr


def test_a_torn_row_and_a_file_that_is_missing_are_named_and_nothing_is_called_held(call, journal, tmp_path):
    path = journal(*hold("one", ONE, 1, 1000.0, 1000.3), more='{"v": 1, "kind": "acq')
    told = call("audit", path, str(tmp_path / "absent.jsonl"), code=65).stdout
    assert told.startswith("no violation was found, but the journals are incomplete: 1 grant")
    assert "missing: 1 row could not be read: a crash or a full disk cut it" in told
    assert f"missing: a journal could not be read: {tmp_path}/absent.jsonl" in told
    read = document(call("audit", path, "--json", code=65).stdout)
    assert (read["verdict"], read["gaps"]["torn"]) == ("incomplete", 1)


def test_each_kind_of_gap_has_a_sentence(call, journal):
    rows = [
        *hold("one", ONE, 1, 1000.0, 1001.0),
        row("two", 1, "missed", at=1002.0, data={"count": 3}),
        row("two", 5, "busy", at=1003.0, data={"holder": "bob@box pid 9 (sleep)"}),
        row("two", 6, "released", TWO, 1004.0, until=1004.0),
    ]
    told = call("audit", journal(*rows), code=65).stdout
    for sentence in [
        "3 events did not reach a journal",
        "3 rows of a journal are missing",
        "1 process ended without closing a journal, or cannot be seen from here: ann@two",
        "1 holder that others met is in no journal, or not with that claim: bob@box pid 9",
        "1 hold began before, and was not checked",
    ]:
        assert sentence in told, (sentence, told)


def test_rows_that_are_missing_before_the_first_of_a_writer_are_a_gap_unless_they_are_older_than_a_hold(
    call, journal
):
    now = time.time()
    old = [each | {"n": each["n"] + 3} for each in hold("one", ONE, 1, now - 100.0, now - 99.0)]
    told = call("audit", journal(*old), code=65).stdout
    assert "2 rows of a journal are missing" in told
    call("audit", journal(*old), "--since", "1h", code=65)
    before = row("one", 3, "busy", at=now - 90_100.0)
    rows = [before, *(each | {"n": each["n"] + 1} for each in old)]
    call("audit", journal(*rows), code=65)
    call("audit", journal(*rows), "--since", "2h", code=65)
    call("audit", journal(*rows), "--since", "1h", code=0)


def test_a_holder_that_others_met_needs_a_row_of_that_claim_and_not_only_of_its_process(call, journal):
    def rows(claim):
        data = {"holder": "ann@one pid 7", "holder_claim": claim}
        held = hold("one", ONE, 1, 1000.0, 1001.0)
        return [*held[:2], row("one", 2, "queued", TWO, 1000.5, data=data), held[2] | {"n": 3}]

    assert call("audit", journal(*rows(ONE))).stdout.startswith("exclusion held")
    told = call("audit", journal(*rows(TWO)), code=65).stdout
    assert (
        f"1 holder that others met is in no journal, or not with that claim: ann@one pid 7 (claim {TWO})"
        in told
    )


def test_a_client_without_a_journal_beside_one_with_it_is_a_gap(call, environment, monkeypatch):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with library.connect() as told, library.connect(journal=False) as silent:
        with told.lock("other").acquire():
            pass
        with silent.lock("a").acquire() as lease:
            call("run", "a", "--no-wait", "--", "true", code=75)
    assert lease.claim_id in call("audit", code=65).stdout


def test_one_file_is_one_store_however_its_url_is_written(call, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    place = f"{tmp_path}/one.db"
    for url in (
        f"sqlite:{place}",
        f"sqlite://{place}",
        f"sqlite:{tmp_path}/./one.db",
        f"sqlite:{tmp_path}/link/one.db",
    ):
        call("run", "a", "--url", url, "--", "true")
    assert call("audit").stdout.startswith("exclusion held: 4 grants, 1 lock,")
    assert call("audit", "--url", f"sqlite:{tmp_path}/link/./one.db").stdout.startswith(
        "exclusion held: 4 grants"
    )


def test_rows_of_one_file_that_were_written_with_two_urls_are_of_one_store(call, journal):
    about = {"scope": "host", "host": "box", "boot": "boot of one"}
    one = [each | about | {"store": "sqlite:/y/../x.db"} for each in hold("one", ONE, 1, 1000.0, 1005.0)]
    two = [each | about | {"store": "sqlite:///x.db"} for each in hold("two", TWO, 2, 1001.0, 1002.0)]
    assert "1 lock, 1 overlap" in call("audit", journal(*one, *two), code=1).stdout


def test_a_store_and_a_namespace_that_are_asked_for_are_the_only_ones(call):
    call("run", "a", "--", "true")
    call("run", "b", "--namespace", "other", "--", "true")
    for options, names in [
        ((), ["a", "b"]),
        (("--namespace", "other"), ["b"]),
        (("--namespace", "default"), ["a"]),
        (("--namespace", "third"), []),
        (("--url", "redis://x/0"), []),
        (("--url", "sqlite:", "--namespace", "default"), ["a"]),
    ]:
        read = document(call("history", "--json", *options).stdout)
        assert [each["name"] for each in read["holds"]] == names
        read = document(call("report", "--json", *options).stdout)
        assert sorted(each["name"] for each in read["uses"]) == names
        found = call("audit", *options, code=0 if names else 65).stdout
        assert f"{len(names)} grant" in found if names else found.startswith("there is nothing to audit")


def test_without_a_grant_there_is_nothing_to_audit(call, journal):
    told = call("audit", journal(row("one", 1, "closed", at=1.0)), code=65).stdout
    assert told.startswith("there is nothing to audit: the journals have no grants\n")


def test_a_stale_write_is_a_violation_and_both_fences_are_named(call, journal):
    data = {"resource": "the Redis key 'k'"}
    rows = [
        *hold("one", ONE, 1, 1000.0, 1001.0)[:2],
        *hold("two", TWO, 2, 1001.0, 1004.0),
        row("two", 4, "guard_opened", TWO, 1002.0, fence=2, duration=0.1, data=data),
        row("one", 3, "guard_written", ONE, 1003.0, fence=1, duration=0.1, data=data),
        row("one", 4, "guard_refused", ONE, 1003.5, fence=1, data=data | {"stored": 2}),
        row("one", 2, "closed", at=1004.0),
    ]
    told = call("audit", journal(*rows), code=1).stdout
    assert "1 guarded write, 1 lost to an older holder, 1 refused" in told
    assert "'a' in default on redis://box: the Redis key 'k' accepted fence 1 after a higher one" in told
    assert f"fence 2 opened, claim {TWO}, ann@two pid 7" in told
    assert f"fence 1 written, claim {ONE}, ann@one pid 7" in told
    read = document(call("audit", journal(*rows), "--json", code=1).stdout)
    (violation,) = read["violations"]
    assert (violation["kind"], [step["fence"] for step in violation["steps"]]) == ("stale-write", [2, 1])
    assert (read["writes"], read["refused"]) == (1, 1)


@pytest.mark.parametrize("columns", [80, 160])
def test_a_timeline_fits_the_terminal(call, environment, columns):
    for _ in range(2):
        call("run", "backup/" + "x" * 100, "--", "true")
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lockkit", "history"],
        env=environment
        | {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        stdout=other,
        stdin=other,
        stderr=other,
    )
    os.close(other)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:
        pass
    os.close(main)
    assert process.wait(40) == 0
    rows = shown.decode().splitlines()
    assert max(map(len, rows)) <= columns
    assert sum("█" in row or "▏" in row for row in rows) == 2


RACE = """
import lockkit, sys
with lockkit.connect(sys.argv[1], namespace=sys.argv[2]) as client:
    for turn in range(15):
        with client.lock("one").acquire(timeout=60):
            pass
        with client.semaphore("three", 3).acquire(timeout=60):
            pass
"""


def race(url, environment, namespace="race"):
    workers = [
        subprocess.Popen([sys.executable, "-c", RACE, url, namespace], env=environment) for _ in range(4)
    ]
    try:
        assert [worker.wait(120) for worker in workers] == [0] * 4
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def test_processes_that_race_on_the_embedded_store_pass_the_audit(call, environment):
    race("sqlite:", environment)
    assert "exclusion held: 120 grants, 2 locks, 0 overlaps" in call("audit").stdout


def test_processes_that_race_on_redis_pass_the_audit_and_the_report_tells_stores_apart(
    call, environment, servers
):
    url = servers("redis")
    race(url, environment, "audited")
    race("sqlite:", environment)
    assert "exclusion held: 240 grants, 4 locks, 0 overlaps" in call("audit").stdout
    shown = call("report").stdout
    assert f"one (audited on {name_of(url)})" in shown
    assert "one (race on sqlite:" in shown
