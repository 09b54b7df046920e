"""explain, status and wait: whether a holder runs, is stopped, killed, forked or evicted, on every store."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from lockkit import connect
from lockkit.errors import LeaseLost
from lockkit.facts import ClaimInfo, Owner
from lockkit.store import judging
from lockkit.store.judging import NOBODY, judged, judgement
from lockkit.store.owners import owner_of
from lockkit.values.identity import look_at, this_process

HOLDER = """
import os, signal, sys, lockkit
client = lockkit.connect()
lease = client.lock(sys.argv[1], ttl=60).acquire(timeout=40)
print(os.getpid(), flush=True)
{more}
signal.pause()
"""


def python(lockkit, name, more=""):
    """A Python program that holds a name, through the library."""
    program = [sys.executable, "-c", HOLDER.format(more=more), name]
    process = subprocess.Popen(
        program, env=lockkit.env, cwd=lockkit.folder, stdout=subprocess.PIPE, text=True
    )
    lockkit.started.append(process)
    assert process.stdout.readline()
    return process


def explained(lockkit, name):
    return lockkit("explain", name).stdout


def claim(lockkit, name):
    """The only claim of a name."""
    (found,) = lockkit.claims(name)
    return found


def end_of(text, before):
    """The command at the end of the sentence that begins with ``before``."""
    return re.search(rf"^{re.escape(before)}: (.*)$", text, re.MULTILINE)[1]


@pytest.mark.parametrize("start", ["run", "python"])
def test_a_holder_that_runs_is_alive(lockkit, place, name, start):
    holder = lockkit.holder(name) if start == "run" else python(lockkit, name)
    found = claim(lockkit, name)
    assert (found["process"], found["alive"], found["owner"]["pid"]) == ("alive", True, holder.pid)
    told = "its pulse answers" if place == "sqlite" else f"process {holder.pid} runs on this host"
    assert f"Its holder is alive: {told}." in explained(lockkit, name)


def test_a_stopped_holder_is_not_alive_and_goes_on_with_the_line_that_is_told(lockkit, place, name):
    holder = python(lockkit, name)
    holder.send_signal(signal.SIGSTOP)
    lockkit.until(lambda: claim(lockkit, name)["process"] == "stopped")
    assert claim(lockkit, name)["alive"] is None
    told = explained(lockkit, name)
    assert "Its holder is stopped" in told
    assert "alive" not in told
    assert "stopped" in lockkit("status", name).stdout
    assert "stopped" in lockkit("wait", name, "--timeout", "100ms").stderr
    subprocess.run(end_of(told, "To let it go on"), shell=True, check=True)
    lockkit.until(lambda: claim(lockkit, name)["process"] == "alive")


def test_a_stopped_wrapper_is_named_as_such_with_what_goes_on(lockkit, place, name):
    wrapper = lockkit.start("run", name, "--", "sh", "-c", "sleep 60 & echo $$ $! > pids; wait")
    command, child = map(int, lockkit.file("pids").split())
    wrapper.send_signal(signal.SIGSTOP)
    lockkit.until(lambda: "The lockkit run that took it is stopped" in explained(lockkit, name))
    told = explained(lockkit, name)
    first, second = sorted([(command, "sh"), (child, "sleep")])
    both = f"pid {first[0]} ({first[1]}), pid {second[0]} ({second[1]})"
    assert f"Its command goes on: {both}." in told
    for pid in (command, child):
        os.kill(pid, signal.SIGSTOP)
    lockkit.until(lambda: "Its command goes on" not in explained(lockkit, name))
    for pid in (command, child):
        os.kill(pid, signal.SIGKILL)


def test_a_killed_holder_is_dead_on_a_server_and_the_lock_is_free_on_sqlite(lockkit, place, name):
    holder = python(lockkit, name)
    holder.kill()
    holder.wait()
    told = explained(lockkit, name)
    tried = lockkit("run", name, "--no-wait", "--", "true").returncode
    waited = lockkit("wait", name, "--timeout", "100ms").returncode
    if place == "sqlite":
        assert "is free" in told
        assert (tried, waited) == (0, 0)
        return
    assert (tried, waited) == (75, 124)
    found = claim(lockkit, name)
    assert (found["process"], found["alive"]) == ("gone", False)
    assert f"Its holder is dead: process {holder.pid} on this host has ended" in told
    assert "alive" not in told
    assert "holder gone" in lockkit("status", name).stdout
    line = end_of(told, "If nothing that it started works on, free it now").replace('"..."', "dead")
    assert " --now " in line
    assert lockkit(*line.split()[1:]).returncode == 0
    assert lockkit("run", name, "--no-wait", "--", "true").returncode == 0


def test_a_zombie_has_ended(lockkit, place, name):
    holder = python(lockkit, name)
    holder.kill()  # and not waited for
    lockkit.until(lambda: all(found["process"] == "gone" for found in lockkit.claims(name)))


def test_the_lock_of_a_killed_wrapper_is_kept_by_what_it_left_and_freed_by_the_line_that_is_told(
    lockkit, alive
):
    wrapper = lockkit.start(
        "run", "x", "--", "sh", "-c", "setsid sh -c 'echo $$ > left; exec sleep 60' >/dev/null 2>&1 & wait"
    )
    left = int(lockkit.file("left"))
    wrapper.kill()
    wrapper.wait()
    lockkit.until(lambda: [one["pid"] for one in claim(lockkit, "x")["kept_by"]] == [left])
    found = claim(lockkit, "x")
    assert (found["process"], found["alive"], found["kept_by"][0]["program"]) == ("gone", True, "sleep")
    told = explained(lockkit, "x")
    assert f"The lockkit run that took it is gone: process {wrapper.pid} on this host has ended" in told
    assert f"The lock is kept until these have ended: pid {left} (sleep)." in told
    assert "alive" not in told
    assert "holder gone" in lockkit("status").stdout
    subprocess.run(end_of(told, "To end it"), shell=True, check=True)
    lockkit.until(lambda: not alive(left))
    assert "is free" in explained(lockkit, "x")
    assert lockkit("wait", "x", "--timeout", "0s").returncode == 0
    assert lockkit("run", "x", "--no-wait", "--", "true").returncode == 0


def test_a_process_that_waits_for_the_lock_is_not_taken_for_one_that_keeps_it(lockkit):
    wrapper = lockkit.start(
        "run", "x", "--", "sh", "-c", "setsid sh -c 'echo $$ > left; exec sleep 60' >/dev/null 2>&1 & wait"
    )
    left = int(lockkit.file("left"))
    waiter = lockkit.start("run", "x", "--", "true")  # rings, and watches, the holder's bell
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    wrapper.kill()
    wrapper.wait()
    lockkit.until(lambda: lockkit.claims("x")[0]["process"] == "gone")
    lockkit.until(lambda: [one["pid"] for one in lockkit.claims("x")[0]["kept_by"]] == [left])
    os.kill(left, signal.SIGKILL)
    assert waiter.wait(40) == 0


@pytest.mark.parametrize("end", ["stopped", "running"])
def test_what_is_evicted_and_dead_is_free_for_every_command(lockkit, end):
    holder = python(lockkit, "x")
    if end == "stopped":
        holder.send_signal(signal.SIGSTOP)
    claim_id = claim(lockkit, "x")["claim_id"]
    assert lockkit("evict", "x", "--claim", claim_id, "--reason", "r").returncode == 0
    if end == "stopped":
        told = explained(lockkit, "x")
        assert "It has been evicted" in told
        assert "is stopped" in told
        assert lockkit("wait", "x", "--timeout", "0s").returncode == 124
    holder.kill()
    holder.wait()
    assert lockkit("wait", "x", "--timeout", "0s").returncode == 0
    assert lockkit.json("status", "x")["locks"][0]["state"] == "free"
    assert lockkit.json("status")["locks"] == []
    assert lockkit("run", "x", "--no-wait", "--", "true").returncode == 0


def test_a_killed_holder_with_a_lock_delay_blocks_for_it_and_wait_sees_the_end(lockkit):
    (lockkit.folder / "lockkit.toml").write_text('lock_delay = "5s"\n')
    holder = python(lockkit, "x")
    holder.kill()
    holder.wait()
    assert lockkit("wait", "x", "--timeout", "100ms").returncode == 124
    assert lockkit("wait", "x", "--timeout", "30s").returncode == 0
    assert lockkit("run", "x", "--no-wait", "--", "true").returncode == 0


def test_a_forked_child_keeps_nothing_that_its_parent_held(lockkit, place, name):
    holder = python(
        lockkit, name, "child = os.fork()\nif not child: signal.pause()\nprint(child, flush=True)"
    )
    child = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    try:
        found = lockkit.claims(name)
        assert [one["kept_by"] for one in found] == [[]] * len(found)
        assert {one["process"] for one in found} <= {"gone"}
        assert len(found) == (0 if place == "sqlite" else 1)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_hold_of_acquire_is_not_judged_by_the_process_that_took_it(lockkit, place, name):
    assert lockkit("acquire", name, "--ttl", "30s").returncode == 0
    found = claim(lockkit, name)
    assert (found["process"], found["alive"], found["evidence"]) == ("unknown", None, NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="making a pid namespace takes root")
def test_a_holder_in_another_pid_namespace_is_never_guessed(lockkit, place, name):
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*inside, "true"], check=False).returncode != 0:
        pytest.skip("no pid namespace can be made here")
    program = [*inside, sys.executable, "-c", HOLDER.format(more=""), name]
    process = subprocess.Popen(program, env=lockkit.env, stdout=subprocess.PIPE, text=True)
    lockkit.started.append(process)
    assert process.stdout.readline() == "1\n"
    found = claim(lockkit, name)
    assert found["process"] == "unknown"
    assert "container" in found["evidence"]
    assert found["alive"] is (True if place == "sqlite" else None)  # somebody holds its pulse
    known = "Some process keeps it" if place == "sqlite" else "Whether its holder is alive is unknown"
    assert f"{known}: its process or this one is in a container" in explained(lockkit, name)


SHOWN = """
import json, sys
from lockkit.values.identity import this_process
print(json.dumps(this_process()._asdict()), flush=True)
sys.stdin.read()
"""
JUDGED = """
import json, sys
from lockkit.facts import Owner
from lockkit.store.judging import judgement
print(judgement(Owner(**json.loads(sys.argv[1])))[0])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="making a time namespace takes root")
@pytest.mark.parametrize("inside", ["holder", "observer"])
def test_a_living_holder_is_not_called_dead_across_time_namespaces(lockkit, inside):
    """In a time namespace all times of start are shown by another clock (time_namespaces(7))."""
    other = ["unshare", "--time", "--boottime", "100000", "--fork", "--kill-child"]
    if subprocess.run([*other, "true"], check=False).returncode != 0:
        pytest.skip("no time namespace can be made here")
    process = subprocess.Popen(
        [*(other if inside == "holder" else ()), sys.executable, "-c", SHOWN],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    lockkit.started.append(process)
    owner = process.stdout.readline().strip()
    seen = subprocess.run(
        [*(other if inside == "observer" else ()), sys.executable, "-c", JUDGED, owner],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout == "unknown\n"


def test_an_eviction_at_once_is_noticed_at_the_next_renewal_at_the_latest(lockkit, place, name):
    with connect(lockkit.env["LOCKKIT_URL"]) as client:
        lease = client.lock(name, ttl=4).acquire(timeout=40)
        client.evict(name, lease.claim_id, reason="r", now=True)
        assert lease.lost.wait(30)
        for ask in lease.ensure_held, lease.confirm:
            with pytest.raises(LeaseLost):
                ask()
        assert lease.release().outcome == "LOST"


def test_a_run_that_the_holder_started_says_so(lockkit):
    more = (
        "import subprocess; "
        f"subprocess.run({lockkit.line('run', 'x', '--no-wait', '--', 'true')}, stderr=sys.stdout)"
    )
    holder = python(lockkit, "x", more)
    assert f"pid {holder.pid}" in (told := holder.stdout.readline())
    assert (
        "; that process started this command, "
        "and the two wait for each other if it waits for the end of this command" in told
    )
    other = lockkit("run", "x", "--no-wait", "--", "true")
    assert "started this command" not in other.stderr


def test_namespaces_with_claims_are_listed(lockkit, place, name):
    one, other = f"n.{name}", f"o.{name}"
    with (
        connect(lockkit.env["LOCKKIT_URL"], namespace=one) as client,
        connect(lockkit.env["LOCKKIT_URL"], namespace=other) as second,
    ):
        assert {one, other}.isdisjoint(client.namespaces())
        with client.lock("x").acquire(), second.lock("a/b").acquire(), second.lock("c").acquire():
            assert [each for each in client.namespaces() if name in each] == [one, other]
            assert {one, other} <= set(lockkit.json("namespaces")["namespaces"])
        assert {one, other}.isdisjoint(client.namespaces())


# -- the judgement itself


HERE = this_process()


def of(**changes):
    return judgement(HERE._replace(**changes))


def test_this_process_is_alive():
    assert judgement(HERE) == ("alive", f"process {HERE.pid} runs on this host")


@pytest.mark.parametrize(
    "owner, told",
    [
        (HERE._replace(boot_id="other"), "before this host was restarted"),
        (HERE._replace(boot_id="other", host="elsewhere"), "on another host, elsewhere"),
        (HERE._replace(pid_space=7), "in a container"),
        (HERE._replace(started=1.0, pid_space=0), "another container"),
        (HERE._replace(pid=4_194_305, pid_space=0), "another container"),
        (Owner(), "cannot be identified"),
        (Owner(pid=HERE.pid), "cannot be identified"),
        (HERE._replace(started=0.0), "cannot be identified"),
    ],
)
def test_what_this_process_cannot_see_is_unknown(owner, told):
    process, evidence = judgement(owner)
    assert process == "unknown"
    assert told in evidence


def test_another_process_with_the_same_pid_is_not_taken_for_the_owner():
    assert of(started=1.0) == (
        "gone",
        f"process {HERE.pid} on this host has ended, and another process has that pid now",
    )


def test_a_pid_that_no_process_has_is_gone():
    assert of(pid=4_194_305)[0] == "gone"


def test_a_process_that_a_user_may_not_see_is_unknown(monkeypatch):
    """As on a /proc that is mounted with hidepid=2."""
    monkeypatch.setattr("lockkit.store.judging.look_at", lambda _pid: None)
    assert judgement(HERE)[0] == "unknown"


def test_the_owner_of_an_older_version_is_told_alive_but_never_dead():
    assert of(pid_space=0)[0] == "alive"


def test_a_lingering_claim_has_no_process_any_more():
    ended = ClaimInfo("x", "0" * 12, "LINGERING", HERE, 1, 0)
    assert judged(ended) is ended


def test_an_owner_without_a_pid_namespace_can_be_read():
    """A claim that an older version wrote has no such field."""
    stored = json.dumps({"user": "ann", "pid": 7, "later": 1})
    assert owner_of(json.loads(stored)) == Owner(user="ann", pid=7)


def test_what_is_known_of_a_free_name_is_told_on_every_store(lockkit, place, name):
    forgotten = (
        "Nothing here remembers this name, so whether it was ever used is not known: "
        "a store forgets a name that is free."
    )
    lockkit("run", name, "--", "true")
    assert explained(lockkit, name).splitlines()[-1] == forgotten
    assert f"'{name}' is free; nothing here remembers this name" in lockkit("status", name).stdout
    assert lockkit.json("explain", name)["record"] is None
    with connect(lockkit.env["LOCKKIT_URL"], namespace=lockkit.env["LOCKKIT_NAMESPACE"]) as client:
        client.put_record(name, {"cleaned": "yes"}, 0)
    told = explained(lockkit, name).splitlines()[-1]
    assert re.fullmatch(r'A program wrote a record of it at .+, .+ ago: \{"cleaned": "yes"\}', told)
    assert f"'{name}' is free; a program wrote a record of it at " in lockkit("status", name).stdout
    assert lockkit.json("explain", name)["record"]["value"] == {"cleaned": "yes"}


def test_a_look_at_a_lock_looks_at_its_process_once(tmp_path, monkeypatch):
    looked = []

    def counting(pid):
        looked.append(pid)
        return look_at(pid)

    with connect(f"sqlite:{tmp_path}/x.db") as client, client.lock("x").acquire():
        monkeypatch.setattr(judging, "look_at", counting)
        [claim] = client.inspect("x").claims
        assert (claim.process, looked) == ("alive", [os.getpid()])
