"""status of many locks, similar names, namespaces, and what the journal says of a name."""

from __future__ import annotations

import io
import json
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from lockkit import connect
from lockkit.cli import traces
from lockkit.cli.commands.explain import sentences
from lockkit.cli.lock_table import table_of
from lockkit.cli.looking import summary_words
from lockkit.errors import ConfigError, PermissionDenied
from lockkit.facts import ClaimInfo, Keeper, LockInfo, Owner, Record
from lockkit.observe import journal
from lockkit.testing.processes import until
from lockkit.values.identity import look_at
from lockkit.views.looking import Asked, Look, look, summary

ANN = Owner(user="ann", host="box", pid=4711, program="sleep")


def claim(name, state, since, position=0):
    return ClaimInfo(name, f"{position:012x}", state, ANN, 1, position, since=since)


def queue(name, held_since, *waiting_since):
    waiting = [claim(name, "WAITING", since, place) for place, since in enumerate(waiting_since, start=1)]
    return LockInfo(name, (claim(name, "HELD", held_since), *waiting))


class Fleet:
    """A client that knows some queues."""

    def __init__(self, *queues):
        self.queues = {info.name: info for info in queues}
        self.capabilities = type("Capabilities", (), {"scope": "fleet"})

    def names(self, prefix="", *, pattern=None, deep=False):
        return sorted(self.queues)

    def inspect(self, name):
        return self.queues[name]

    def drained(self, namespace=None):
        return None


QUEUES = (queue("a", 50.0), queue("b", 90.0, 95.0, 96.0), queue("c", 10.0), queue("d", 91.0, 92.0))


@pytest.mark.parametrize("sort, order", [("name", "abcd"), ("age", "dbca"), ("waiters", "bdac")])
def test_locks_are_sorted(sort, order):
    found = look(Fleet(*QUEUES), Asked(sort=sort))
    assert "".join(info.name for info in found.locks) == order


def test_many_queues_are_read_at_once_and_none_is_left_out():
    many = [queue(f"job/{number}", 1.0) for number in range(500)]
    found = look(Fleet(*many), Asked(limit=3))
    assert len(found.locks) == 500
    assert len(found.shown) == 3


def test_the_summary_counts_what_the_limit_leaves_out():
    found = Look(QUEUES, {}, 1)
    told = summary(found, 100.0)
    assert (told.locks, told.held, told.waiters) == (4, 4, 3)
    assert (told.longest_wait_seconds, told.longest_wait_name) == (8.0, "d")
    assert summary_words(found, 100.0) == (
        "4 locks: 4 held; 3 claims wait, the longest for 8 s ('d'); 1 shown (--limit 0 shows all)"
    )
    assert summary_words(Look(QUEUES[:1], {}), 100.0) == "1 lock: 1 held"


def test_status_takes_a_pattern_an_order_and_a_limit(lockkit):
    with connect(f"sqlite:{lockkit.folder}/state/lockkit.db") as client:
        names = ["team-01/a", "team-01/b", "team-02/a", "x[1]"]
        leases = [client.lock(name).acquire() for name in names]
        out = lockkit("status", "team-01/*").stdout
        assert re.findall(r"^\S+/\S+", out, re.MULTILINE) == ["team-01/a", "team-01/b"]
        assert out.endswith("\n2 locks: 2 held\n")
        limited = lockkit.json("status", "team-0?/a", "--limit", "1", "--sort", "age")
        assert [lock["name"] for lock in limited["locks"]] == ["team-01/a"]
        assert limited["summary"]["locks"] == 2
        assert [lock["name"] for lock in lockkit.json("status", "x[1]")["locks"]] == ["x[1]"]
        assert "no lock whose name matches 'y*' is held" in lockkit("status", "y*").stdout
        for lease in leases:
            lease.release()


def test_names_match_a_pattern_or_themselves():
    with connect("memory://patterns") as client:
        leases = [client.lock(name).acquire() for name in ("a/1", "a/2", "b/1", "c[1]", "c1")]
        assert client.names(pattern="a/*") == ["a/1", "a/2"]
        assert client.names(pattern="?/1") == ["a/1", "b/1"]
        assert client.names(pattern="c[1]") == ["c1", "c[1]"]
        assert client.names("b", pattern="*1") == ["b/1"]
        assert client.names("a", pattern="b*") == []
        assert client.names(pattern="A/*") == []
        with pytest.raises(ConfigError):
            client.names(pattern=3)
        for lease in leases:
            lease.release()


def test_a_name_that_is_not_in_use_brings_similar_ones_that_are(lockkit):
    lockkit("acquire", "backup", "--ttl", "1m")
    told = lockkit("explain", "Backpu").stdout
    assert "'Backpu' is free: nobody holds it and nobody waits for it." in told
    assert "A similar name is in use: lockkit explain backup" in told
    assert (
        "'Backpu' is free; a similar name is in use: lockkit status backup"
        in lockkit("status", "Backpu").stdout
    )
    assert lockkit.json("explain", "Backpu")["near"] == ["backup"]
    assert lockkit.json("status", "Backpu")["near"] == ["backup"]
    assert "No similar name is in use here." in lockkit("explain", "gpu:0").stdout


def test_a_store_that_does_not_list_its_names_is_not_said_to_have_no_similar_one():
    class Unlisted(Fleet):
        config = SimpleNamespace(state_place=lambda **_: SimpleNamespace(path=Path("/nonexistent")))

        def names(self, prefix="", *, pattern=None, deep=False):
            raise PermissionDenied("not for you")

        def record(self, name):
            raise PermissionDenied("no record for you")

    found = traces.traces(Unlisted(LockInfo("x")), "x")
    assert traces.sentences(found, 100.0) == [
        "The store does not list the names in use, so similar names are not known.",
        "Whether a program wrote a record of it is not known: no record for you",
    ]
    assert traces.row("x", found, 100.0) == ""


def test_a_long_record_is_cut():
    found = traces.Traces((), Record("x", {"last": "n" * 500}, 1, 40.0))
    assert traces.sentences(found, 100.0)[-1].endswith(f' ago: {{"last": "{"n" * 190}...')


def test_a_name_in_use_brings_no_similar_ones(lockkit):
    for name in "backup", "backups":
        lockkit("acquire", name, "--ttl", "1m")
    assert "backups" not in lockkit("explain", "backup").stdout
    assert lockkit.json("status", "backup")["near"] == []


def test_namespaces_are_listed(lockkit):
    assert lockkit("namespaces").stdout == "no namespace has claims\n"
    for namespace in "prod", "ci":
        lockkit("acquire", "x", "--ttl", "1m", "--namespace", namespace)
    assert lockkit("namespaces").stdout == "ci\nprod\n"
    document = lockkit.json("namespaces")
    assert (document["schema"], document["namespaces"]) == ("lockkit.namespaces/1", ["ci", "prod"])


def test_explain_mentions_a_release_of_the_name_that_failed(lockkit):
    folder = lockkit.folder / "state"
    folder.mkdir(mode=0o700)
    journal.append(folder, {"name": "other", "claim": "0" * 12})
    resolved = journal.append(folder, {"name": "x", "claim": "1" * 12})
    journal.resolve(folder, resolved, "ann")
    failed = journal.append(folder, {"name": "x", "claim": "2" * 12, "errors": ["no answer"]})
    told = lockkit("explain", "x").stdout
    assert re.search(
        rf"A release of 'x' got no answer at 20\S+Z \(claim 2+\): lockkit failures show {failed}", told
    )
    assert resolved not in told
    assert lockkit("failures", "show", failed).returncode == 0
    assert "Nothing here remembers" not in told
    assert "'x' is free; a release of it got no answer: lockkit explain x" in lockkit("status", "x").stdout
    assert lockkit.json("explain", "x")["failures"] == [failed]
    assert "got no answer" not in lockkit("explain", "y").stdout


def test_explain_says_where_a_release_failed_if_that_was_elsewhere(lockkit):
    folder = lockkit.folder / "state"
    folder.mkdir(mode=0o700)
    journal.append(folder, {"name": "x", "claim": "2" * 12, "url": "redis://box", "namespace": "prod"})
    told = lockkit("explain", "x").stdout
    assert "A release of 'x' in namespace prod of redis://box got no answer at 20" in told


def test_only_the_latest_failures_are_told(lockkit):
    folder = lockkit.folder / "state"
    folder.mkdir(mode=0o700)
    ids = [journal.append(folder, {"name": "x", "claim": "0" * 12}) for _ in range(5)]
    told = lockkit("explain", "x").stdout
    assert "has 5 failed releases of 'x': lockkit failures list" in told
    assert [one in told for one in ids] == [False, False, True, True, True]


def test_a_waiter_that_cannot_answer_is_named():
    waits = claim("x", "WAITING", 90.0, 1)
    info = LockInfo("x", (claim("x", "HELD", 50.0), waits._replace(process="stopped")))
    assert any("(sleep), which is stopped, for 10 s" in told for told in sentences(info, 100.0))


def test_processes_that_this_user_may_not_see_are_not_guessed():
    kept = claim("x", "HELD", 50.0)._replace(
        process="gone", alive=True, evidence="process 4711 has ended; its pulse answers", process_bound=True
    )
    told = sentences(LockInfo("x", (kept,)), 100.0)
    assert "Which processes keep the lock cannot be told: this user may not look into them." in told
    assert "Its holder is gone: process 4711 has ended, but processes that it started keep the lock." in told
    assert not any("kill " in each for each in told)


@pytest.mark.parametrize(
    "width, state", [(40, "holder gone"), (80, "holder gone"), (120, "held, holder gone")]
)
def test_the_state_of_a_dead_holder_fits_the_table(width, state):
    gone = claim("backup", "HELD", time.time())._replace(process="gone")
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table_of([LockInfo("backup", (gone,))], width))
    out = console.export_text()
    assert max(map(len, out.splitlines())) <= width
    assert state in out
    assert "ann@box pid 4711 (sleep)" in out


def test_a_pipe_gets_whole_rows_however_long_and_wide_characters_in_line(lockkit):
    long, wide = "n" * 400, "\N{CJK UNIFIED IDEOGRAPH-9501}" * 3
    with connect(f"sqlite:{lockkit.folder}/state/lockkit.db") as client:
        leases = [client.lock(name).acquire() for name in (long, wide)]
        rows = lockkit("status").stdout.splitlines()
        assert [row.split()[:2] for row in rows[2:4]] == [[long, "held"], [wide, "held"]]
        assert rows[2].index("held") == rows[3].index("held") + len(wide)
        for lease in leases:
            lease.release()


BAD = [
    (json.dumps({"v": 1, "kind": "mutex", "owner": {"pid": "../x", "started": 1.0, "host": 7}}), "[" * 3000),
    (
        json.dumps({"v": 1, "kind": ["x"], "owner": {"pid": 10**30, "user": ["a"], "task": [1]}}),
        '{"pool": {"count": 1e400}}',
    ),
    (
        "{bad", ('{"lockkit": {"gpu": {"used": "x"}, "progress": [1], "asked": 7}, '
        '"adopted": {"pid": "x"}, "pool": 1}'),
    ),
]  # fmt: skip


@pytest.mark.parametrize("info, note", BAD)
def test_whatever_somebody_has_written_into_a_claim_it_blocks_its_lock_and_nothing_else(lockkit, info, note):
    lockkit.env["LOCKKIT_URL"] = f"sqlite:{lockkit.folder}/locks.db"
    with (
        connect(lockkit.env["LOCKKIT_URL"]) as client,
        client.lock("a").acquire(),
        client.pool("p", ["0"]).acquire(),
    ):
        renamed = client.lock("c").acquire()
        with sqlite3.connect(lockkit.env["LOCKKIT_URL"].removeprefix("sqlite:"), isolation_level=None) as db:
            db.execute("UPDATE entries SET info = ?, note = ?", (info, note))
            db.execute("UPDATE entries SET name = char(0) || 'x' WHERE name = 'c'")
        assert "a" in lockkit("status").stdout
        json.loads(lockkit("status", "--json").stdout)
        assert "held" in lockkit("explain", "a").stdout
        assert lockkit("explain", "@pool/p/0").returncode == 0
        assert lockkit("recover").returncode in (0, 1)
        assert lockkit("doctor").returncode in (0, 1)
        assert lockkit("run", "a", "--no-wait", "--", "true").returncode == 75
        assert lockkit("run", "b", "--no-wait", "--", "true").returncode == 0
        db.close()
        renamed.release()


@pytest.mark.parametrize("kept", ["sleep", "lockkit-watch"])
def test_the_command_that_ends_a_stopped_process_also_lets_it_go_on(kept):
    """Else it would see the signal only then; and a watchdog ends the command's processes once it goes on."""
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            until(lambda: look_at(process.pid).stopped, "it is stopped", 30.0)
            held = claim("x", "HELD", 50.0)._replace(
                process="gone", alive=True, process_bound=True, kept_by=(Keeper(process.pid, kept),)
            )
            told = sentences(LockInfo("x", (held,)), 100.0)
        finally:
            process.kill()
    end = f"kill -CONT {process.pid}"
    assert f"To end it: {end if kept == 'lockkit-watch' else f'kill {process.pid}; {end}'}" in told
