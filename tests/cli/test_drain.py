"""drain and undrain: who is refused, who finishes, what --wait waits for, where a drain is shown."""

from __future__ import annotations

import json
import re
import signal
import sys

import pytest


def drained(lockkit, *options):
    done = lockkit("drain", *options)
    assert done.returncode == 0, done.stderr
    return done


def test_commands_are_refused_with_the_reason_and_the_command_that_ends_it(lockkit):
    done = drained(lockkit, "--reason", "new kernel")
    assert done.stdout == (
        "namespace default is drained; nobody holds a lock\nto end it: lockkit undrain default\n"
    )
    for command in (
        ("run", "x", "--", "true"),
        ("run", "x", "--no-wait", "--", "true"),
        ("acquire", "x", "--ttl", "1m"),
    ):
        refused = lockkit(*command)
        assert refused.returncode == 75, refused.stderr
        assert "namespace 'default' is drained by" in refused.stderr
        assert "(reason: new kernel); new locks are refused" in refused.stderr
        assert re.search(r"to end it: lockkit undrain --url sqlite:\S+ default\)", refused.stderr)
    assert lockkit("run", "x", "-E", "0", "--", "true").returncode == 0
    assert lockkit("run", "x", "--namespace", "other", "--", "true").returncode == 0
    ended = lockkit("undrain", "default")
    assert "namespace default gives new locks again" in ended.stdout
    assert "had drained it: new kernel" in ended.stdout
    assert lockkit("run", "x", "--", "true").returncode == 0
    assert lockkit("undrain").stdout == "namespace default was not drained\n"


def test_wait_shows_who_is_left_and_ends_when_the_last_holder_has_finished(lockkit):
    lockkit.holder("a")
    (claim,) = lockkit.claims("a")
    waiter = lockkit.start("run", "a", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("a")) == 2)
    drain = lockkit.start("drain", "--wait", "--reason", "reboot")
    assert drain.stderr.readline().startswith("waiting: 1 claim is not over: 'a' (")
    _, err = waiter.communicate(timeout=40)
    assert waiter.returncode == 75
    assert "(reason: reboot)" in err
    assert drain.poll() is None
    lockkit.started[0].send_signal(signal.SIGTERM)
    out, _ = drain.communicate(timeout=40)
    assert drain.returncode == 0
    assert "namespace default is drained; nobody holds a lock" in out
    assert claim["state"] == "HELD"


def test_wait_gives_up_at_its_timeout_and_the_namespace_stays_drained(lockkit):
    lockkit.holder("a")
    done = lockkit("drain", "default", "--wait", "--timeout", "0.2s", "--json")
    assert done.returncode == 124
    error = json.loads(done.stderr)
    assert error["error"] == "timeout"
    assert error["holder"]["name"] == "a"
    assert "it stays drained; to end it: lockkit undrain default" in error["hint"]
    assert lockkit("run", "b", "--", "true").returncode == 75


def test_wait_ends_when_somebody_else_ends_the_drain(lockkit):
    lockkit.holder("a")
    drain = lockkit.start("drain", "--wait")
    drain.stderr.readline()
    assert lockkit("undrain").returncode == 0
    _, err = drain.communicate(timeout=40)
    assert drain.returncode == 1
    assert "namespace default was undrained meanwhile" in err


@pytest.mark.parametrize(
    "number, code, told",
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_who_ends_the_wait_by_a_signal_is_told_that_the_namespace_stays_drained(lockkit, number, code, told):
    lockkit.holder("a")
    drain = lockkit.start("drain", "--wait")
    drain.stderr.readline()
    drain.send_signal(number)
    _, err = drain.communicate(timeout=40)
    assert drain.returncode in (code, -number)
    assert err.endswith(
        f"lockkit: {told} (namespace default stays drained; to end it: lockkit undrain default)\n"
    )
    assert lockkit.json("status")["drained"] is not None


def test_a_wait_for_a_lock_of_the_run_around_it_is_refused_and_nothing_is_drained(lockkit):
    inner = (sys.executable, "-m", "lockkit", "drain")
    done = lockkit("run", "maint", "--", *inner, "--wait")
    assert done.returncode == 75, done.stderr
    assert "'maint' is held by the lockkit run or task around this one" in done.stderr
    assert "drain --wait would wait for itself" in done.stderr
    assert lockkit.json("status")["drained"] is None
    assert lockkit("run", "maint", "--", *inner, "other", "--wait").returncode == 0
    done = lockkit("run", "maint", "--", *inner)
    assert done.returncode == 0
    assert "'maint'" in done.stdout


def test_a_drained_namespace_is_shown_wherever_one_looks(lockkit):
    drained(lockkit, "prod", "--reason", "new kernel")
    (listed,) = lockkit.json("namespaces")["drained"]
    assert (listed["namespace"], listed["reason"]) == ("prod", "new kernel")
    assert lockkit("namespaces").stdout.startswith("prod  (drained by ")
    status = lockkit.json("status", "--namespace", "prod")["drained"]
    assert status == listed
    assert lockkit.json("status")["drained"] is None
    row = lockkit("status", "--namespace", "prod").stdout
    assert "namespace prod has been drained by" in row
    assert "to end it: lockkit undrain --namespace prod" in row
    explained = lockkit.json("explain", "x", "--namespace", "prod")
    assert explained["drained"] == listed
    assert "Namespace prod has been drained" in explained["sentences"][-1]
    (found,) = [
        one for one in lockkit.json("doctor", "--namespace", "prod")["findings"] if one["check"] == "drained"
    ]
    assert found["severity"] == "warning"
    assert "new kernel" in found["message"]
    assert not [one for one in lockkit.json("doctor")["findings"] if one["check"] == "drained"]


def test_json_documents(lockkit):
    lockkit.holder("a")
    made = lockkit.json("drain", "--reason", "r")
    assert made["schema"] == "lockkit.drain/1"
    assert made["drained"]["reason"] == "r"
    assert [claim["name"] for claim in made["holders"]] == ["a"]
    assert made["waited_seconds"] is None
    undone = lockkit.json("undrain")
    assert undone["schema"] == "lockkit.undrain/1"
    assert undone["drained"] == made["drained"]
    assert lockkit.json("undrain")["drained"] is None


@pytest.mark.parametrize(
    "words, told",
    [
        (("drain", "a", "--namespace", "b"), "two namespaces are given: a and --namespace b"),
        (("drain", "--timeout", "1s"), "--timeout needs --wait"),
        (("drain", "--reason", ""), "--reason must not be empty"),
        (("drain", "a/b"), "namespace"),
        (("undrain", "a", "b"), "'b' is one word too many"),
    ],
)
def test_a_wrong_command_line_is_refused(lockkit, words, told):
    done = lockkit(*words)
    assert done.returncode in (64, 78)
    assert told in done.stderr
    assert lockkit.json("status")["drained"] is None
