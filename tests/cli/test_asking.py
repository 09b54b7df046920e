"""ask-release, run --on-ask and --reason: messages to the holder and its command, and their display."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

import lockkit as library
from lockkit.cli.commands.explain import sentences
from lockkit.facts import ClaimInfo, LockInfo, Owner

TRAP = "trap 'echo told > told' {}; touch runs; until [ -e end ]; do sleep 0.05; done; exit 3"


def ask(lockkit, name="x", reason="the disk is needed"):
    (claim, *_) = lockkit.claims(name)
    return lockkit("ask-release", name, "--claim", claim["claim_id"], "--reason", reason)


def running(lockkit, *options, script):
    run = lockkit.start("run", "x", "--ttl", "3s", "--report", "report", *options, "--", "sh", "-c", script)
    lockkit.until((lockkit.folder / "runs").exists)
    return run


def test_a_command_goes_on_and_stderr_says_who_asks_and_why(lockkit):
    run = running(lockkit, script=TRAP.format("TERM"))
    done = ask(lockkit)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r".*@.* is asked to release 'x', and hears of it within 1 s if it renews\n", done.stdout
    )
    line = run.stderr.readline()
    assert re.fullmatch(
        r"lockkit: asked to release 'x' by \S+@\S+ .*: the disk is needed; "
        r"the command goes on \(--on-ask ignore\)\n",
        line,
    )
    (lockkit.folder / "end").touch()
    _, err = run.communicate(timeout=40)
    assert (run.returncode, err) == (3, "")
    assert not (lockkit.folder / "told").exists()
    report = json.loads((lockkit.folder / "report").read_text())
    (request,) = report["release_requests"]
    assert (request["name"], request["reason"]) == ("x", "the disk is needed")
    assert report["release"]["outcome"] == "RELEASED"


@pytest.mark.parametrize("said, name", [("USR1", "USR1"), ("sigusr2", "USR2"), ("term", "TERM")])
def test_the_signal_of_on_ask_is_sent_to_the_command_which_may_go_on(lockkit, said, name):
    run = running(lockkit, "--on-ask", said, script=TRAP.format(name))
    assert ask(lockkit).returncode == 0
    assert lockkit.file("told") == "told"
    (lockkit.folder / "end").touch()
    _, err = run.communicate(timeout=40)
    assert run.returncode == 3
    assert f"sending the command {name}" in err


def test_term_ends_a_command_that_does_not_handle_it_and_the_lock_goes_on_to_the_next(lockkit):
    run = running(lockkit, "--on-ask", "term", script="touch runs; exec sleep 60")
    waiter = lockkit.start("run", "x", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    assert ask(lockkit).returncode == 0
    run.communicate(timeout=40)
    assert run.returncode == 128 + signal.SIGTERM
    waiter.communicate(timeout=40)
    assert waiter.returncode == 0


def test_each_request_is_passed_on_and_the_same_again_too(lockkit):
    count = "trap 'echo >> told' USR1; touch runs; until [ -e end ]; do sleep 0.05; done"
    run = running(lockkit, "--on-ask", "USR1", script=count)
    told = lockkit.folder / "told"
    for number, reason in enumerate(("a", "a", "b"), start=1):
        assert ask(lockkit, reason=reason).returncode == 0
        lockkit.until(lambda number=number: told.exists() and told.read_text().count("\n") == number)
    (claim,) = lockkit.claims("x")
    assert sorted(one["reason"] for one in claim["release_requests"]) == ["a", "b"]
    (lockkit.folder / "end").touch()
    run.communicate(timeout=40)
    assert run.returncode == 0


def test_two_locks_of_one_run_can_each_be_asked_for(lockkit):
    run = lockkit.start("run", "x", "y", "--ttl", "3s", "--", "sh", "-c", "touch runs; exec sleep 60")
    lockkit.until((lockkit.folder / "runs").exists)
    assert ask(lockkit, "y").returncode == 0
    assert "asked to release 'y'" in run.stderr.readline()


@pytest.mark.parametrize("said", ["KILL", "STOP", "nonsense", "", "15", "SIG_IGN"])
def test_other_values_of_on_ask_are_refused(lockkit, said):
    done = lockkit("run", "x", "--on-ask", said, "--", "true")
    assert done.returncode == 64
    assert "--on-ask" in done.stderr


def test_a_claim_that_cannot_be_asked_is_an_error_that_names_those_that_can(lockkit):
    lockkit.holder("x")
    lockkit.start("run", "x", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    holder, waiter = lockkit.claims("x")
    for claim, words in ((waiter["claim_id"], "only waits"), ("0" * 12, "has no claim")):
        done = lockkit("ask-release", "x", "--claim", claim, "--reason", "r")
        assert done.returncode == 1
        assert words in done.stderr
        assert holder["claim_id"] in done.stderr
    assert lockkit("ask-release", "x", "--claim", holder["claim_id"]).returncode == 64
    assert lockkit("ask-release", "x", "--claim", holder["claim_id"], "--reason", "a\nb").returncode == 64
    assert lockkit("ask-release", "x", "--claim", "no id", "--reason", "r").returncode == 78


def test_a_hold_of_acquire_has_nobody_who_could_hear_of_it(lockkit):
    assert lockkit("acquire", "x", "--ttl", "1m", "--reason", "deploy of 14:00").returncode == 0
    done = ask(lockkit)
    assert done.returncode == 0
    assert "no process is attached to it that could hear of it" in done.stdout
    told = lockkit("explain", "x").stdout
    assert "It is held for: deploy of 14:00." in told
    assert re.search(r"It was asked to release \S+ m?s ago, by \S+@\S+ .*: the disk is needed\.", told)


def test_the_reason_is_shown_to_all_whom_the_holder_keeps_waiting(lockkit):
    lockkit.holder("x", "sleep", "--reason", "nightly reindex")
    waiter = lockkit.start("run", "x", "--reason", "by hand", "--timeout", "1s", "--", "true")
    _, err = waiter.communicate(timeout=40)
    first, last = err.splitlines()[1], err.splitlines()[-1]
    assert "for: nightly reindex" in first
    assert "for: nightly reindex" in last
    for line in (["run", "x", "--no-wait", "--", "true"], ["acquire", "x", "--ttl", "1m", "--no-wait"]):
        assert "for: nightly reindex" in lockkit(*line).stderr
    assert "It is held for: nightly reindex." in lockkit("explain", "x").stdout
    assert "; for: nightly reindex" in lockkit("status", "x").stdout
    (claim,) = lockkit.claims("x")
    assert claim["reason"] == "nightly reindex"
    for bad in ("", " ", "x" * 201, "two\nlines"):
        assert lockkit("run", "y", "--reason", bad, "--", "true").returncode == 64


def test_status_and_explain_show_how_far_the_holder_is(lockkit):
    with (
        library.connect(state_dir=lockkit.env["LOCKKIT_STATE_DIR"]) as client,
        client.lock("x", ttl=0.6).acquire() as lease,
    ):
        lease.beat(0.4, "epoch 4/10")
        lockkit.until(lambda: client.inspect("x").holders[0].progress)
        (claim,) = lockkit.claims("x")
        assert (claim["progress"]["done"], claim["progress"]["message"]) == (0.4, "epoch 4/10")
        assert "; 40 %, epoch 4/10" in lockkit("status", "x").stdout
        assert re.search(
            r"Its holder told .* ago how far it is: 40 %, epoch 4/10\.", lockkit("explain", "x").stdout
        )


def test_the_words_of_others_are_printed_without_control_characters(lockkit):
    note = {
        "lockkit": {
            "reason": "a\x1b[2Jb",
            "progress": {"done": 0.5, "message": "c\x9b", "at": 1.0},
            "asked": {"k": {"by": "d\x07", "reason": "e\u202e", "at": 1.0}},
        }
    }
    claim = ClaimInfo(
        "x", "0" * 12, "HELD", Owner("ann", "box", 1), 7, 0, ttl=30.0, since=time.time(), note=note
    )
    told = "\n".join(sentences(LockInfo("x", (claim,)), time.time()))
    assert r"c\x9b" in told
    assert r"d\x07: e\u202e" in told
