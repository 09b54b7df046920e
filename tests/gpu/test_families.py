"""The processes that a holder has started: which count as its own, and which get a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lockkit.gpu.families import Family
from lockkit.values.identity import look_at
from support.programs import programs

SLEEP = "import time; print(1, flush=True); time.sleep(60)"


@pytest.fixture
def start():
    """A function that starts a process, which ends with the test."""
    with programs() as start:

        def begin(**how):
            process = start("sh", "-c", "echo 1; exec sleep 60", **how)
            process.stdout.readline()
            return process

        yield begin


def test_descendants_count_once_they_were_seen(start):
    family = Family()
    child = start()
    assert family.among([child.pid, os.getpid(), 1]) == []
    assert not family.signal(child.pid, signal.SIGTERM)
    family.look()
    assert family.among([child.pid, os.getpid(), 1]) == [child.pid]
    assert family.signal(child.pid, signal.SIGTERM)
    assert child.wait(30) == -signal.SIGTERM
    assert family.among([child.pid]) == []
    assert not family.signal(child.pid, signal.SIGTERM)


def test_a_process_that_was_seen_counts_also_when_its_parent_has_ended(start):
    code = (
        f"import subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], stdout=subprocess.DEVNULL); "
        "print(p.pid, flush=True); sys.stdin.read()"
    )
    family = Family()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        orphan = int(parent.stdout.readline())
        family.look()
    family.look()
    assert family.among([orphan]) == [orphan]
    assert family.signal(orphan, signal.SIGKILL)


def test_the_members_of_a_process_group_count(start):
    family = Family(root=start().pid)
    leader = start(start_new_session=True)
    family.look()
    assert family.among([leader.pid]) == []  # no descendant of the root
    family.look(leader.pid)
    assert family.among([leader.pid]) == [leader.pid]


def test_another_process_under_a_pid_that_was_seen_does_not_count(start):
    """The kernel gives out a pid again: the process has another start time then."""
    family = Family()
    child = start()
    family._seen[child.pid] = look_at(child.pid).started - 10.0
    assert family.among([child.pid]) == []
    assert not family.signal(child.pid, signal.SIGKILL)
    assert child.poll() is None


def test_a_process_that_was_there_before_does_not_count_nor_what_it_starts_later(start):
    code = (
        f"import subprocess, sys; sys.stdin.readline(); "
        f"p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], stdout=subprocess.DEVNULL); "
        "print(p.pid, flush=True); sys.stdin.read(); p.kill()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        at_once = start()  # perhaps in the same clock tick as the family
        family = Family()
        server.stdin.write("\n")
        server.stdin.flush()
        its = int(server.stdout.readline())
        child = start()
        family.look()
        everybody = [server.pid, at_once.pid, its, child.pid]
        assert family.among(everybody) == [child.pid]
        assert not any(family.signal(pid, signal.SIGKILL) for pid in everybody[:3])


def test_a_process_in_the_clock_tick_of_the_family_counts_unless_it_was_named(start, monkeypatch):
    root, stranger = start(), start()
    monkeypatch.setattr("lockkit.gpu.families._now", lambda: look_at(stranger.pid).started)
    named, unnamed = Family(root.pid, before=[stranger.pid]), Family(root.pid)
    for family in (named, unnamed):
        family.look(os.getpgid(stranger.pid))
    assert named.among([stranger.pid]) == []
    assert unnamed.among([stranger.pid]) == [stranger.pid]


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts processes of others")
def test_a_descendant_that_runs_as_another_user_does_not_count(start):
    family = Family()
    child = start(user=65534)
    family.look()
    assert family.among([child.pid]) == []
    assert not family.signal(child.pid, signal.SIGKILL)
