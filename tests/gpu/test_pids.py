"""Pids of the host become pids of this namespace where that is proved, and unknown otherwise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockkit.gpu.devices import DeviceProcess
from lockkit.gpu.pids import Pids, spaces_of, status_of
from lockkit.testing.processes import until
from lockkit.values.identity import user_name

THREAD = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0"
PROGRAM = "2 (sh) kthreadd) S 1 2 2 0 -1 4194560 0 0 0 0 0"


class Proc:
    """A folder like /proc, with this process as ``self``."""

    def __init__(self, folder):
        self.folder = folder

    def process(self, pid, *, pids, space="pid:[7]", uid=0, name="sleep", cmdline="sleep\x0060\0"):
        place = self.folder / str(pid)
        (place / "ns").mkdir(parents=True)
        spaces = "\t".join(map(str, pids))
        (place / "status").write_text(f"Name:\t{name}\nUid:\t{uid}\t9\t9\t9\nNSpid:\t{spaces}\n")
        (place / "cmdline").write_text(cmdline)
        (place / "ns/pid").symlink_to(self.folder / "spaces" / space)
        (self.folder / "spaces").mkdir(exist_ok=True)
        (self.folder / "spaces" / space).touch()
        return self

    def own(self, pid, **more):
        self.process(pid, **more)
        (self.folder / "self").symlink_to(str(pid))
        return self

    def kthreadd(self, text):
        (self.folder / "2").mkdir()
        (self.folder / "2/stat").write_text(text)
        return self


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


def nested(proc, kernel=THREAD):
    """A namespace in that of the host, which sees the host's /proc: its own pid is 900 there and 5 here."""
    return proc.own(900, pids=[900, 5]).kthreadd(kernel)


def test_a_process_of_this_namespace_has_the_pid_that_it_has_here(proc):
    nested(proc).process(901, pids=[901, 6], uid=os.getuid())
    pids = Pids(proc.folder)
    assert pids.view == "outer"
    assert pids.process(901, 7) == DeviceProcess(6, user_name(), "sleep", 7)


@pytest.mark.parametrize(
    "pids, space",
    [
        ([901, 6], "pid:[8]"),  # a sibling at the same depth, whose pid 6 is not ours
        ([901], "pid:[1]"),  # the host itself
        ([901, 6, 2], "pid:[9]"),  # a namespace in this one, or in a sibling
    ],
)
def test_a_process_of_another_namespace_has_no_pid_here(proc, pids, space):
    nested(proc).process(901, pids=pids, space=space)
    assert Pids(proc.folder).process(901, 7) == DeviceProcess(None, user_name(0), "sleep", 7)


def test_a_namespace_that_may_not_be_read_proves_nothing(proc):
    nested(proc).process(901, pids=[901, 6])
    (proc.folder / "901/ns/pid").unlink()
    assert Pids(proc.folder).process(901, None).pid is None


@pytest.mark.parametrize("kernel", [PROGRAM, "2 (kthreadd) S", ""])
def test_in_an_ordinary_container_nothing_is_told_of_a_pid(proc, kernel):
    proc.own(5, pids=[5]).kthreadd(kernel).process(901, pids=[901])
    pids = Pids(proc.folder)
    assert pids.view == "unknown"
    assert pids.process(901, 7) == DeviceProcess(memory=7)


INSIDE = """
import json, os, subprocess, sys
from lockkit.gpu.pids import Pids
children = [
    subprocess.Popen(["sleep", "60"]),
    subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]),
]
print(os.getpid(), *(child.pid for child in children), flush=True)
for row in sys.stdin:
    pids = Pids()
    print(json.dumps([pids.view, *(pids.process(int(pid), 7) for pid in row.split())]), flush=True)
"""


def test_in_a_pid_namespace_that_sees_the_proc_of_the_host_the_kernel_says_which_pid_a_process_has():
    line = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", INSIDE]
    if shutil.which("unshare") is None or subprocess.run([*line[:4], "true"], check=False).returncode:
        pytest.skip("needs the right to make a pid namespace")
    if Pids().view != "same":
        pytest.skip("needs the /proc of the host")
    with (
        subprocess.Popen([*line[:4], "sleep", "60"]) as sibling,
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as outer,
    ):
        try:
            me, child, parent = map(int, outer.stdout.readline().split())
            of_host = {pids[-1]: pids[0] for pids in map(_pids_of, _descendants(outer.pid)) if len(pids) == 2}
            assert (me, of_host[me] != me) == (1, True)
            until(lambda: _children(of_host[parent]) and _children(sibling.pid))
            elsewhere = (*_children(of_host[parent]), *_children(sibling.pid), os.getpid())
            asked = (of_host[me], of_host[child], *elsewhere)
            outer.stdin.write(" ".join(map(str, asked)) + "\n")
            outer.stdin.flush()
            view, *found = json.loads(outer.stdout.readline())
        finally:
            outer.kill()
            sibling.kill()
    assert view == "outer"
    # A process of a namespace in it, of one beside it, and of the host itself has no pid there.
    assert [pid for pid, *_ in found] == [me, child, None, None, None]


def _children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _descendants(pid):
    return [each for child in _children(pid) for each in (child, *_descendants(child))]


def _pids_of(pid):
    return spaces_of(status_of(Path(f"/proc/{pid}")))


def test_without_proc_nothing_is_told(tmp_path):
    assert Pids(tmp_path / "none").process(1, 7) == DeviceProcess(memory=7)


def test_a_process_that_has_ended_is_known_by_its_memory_alone(proc):
    assert Pids(nested(proc).folder).process(4711, 7) == DeviceProcess(memory=7)


@pytest.mark.parametrize(
    "words, program",
    [
        (["/usr/bin/python3", "/srv/train.py", "--token", "secret"], "train.py"),
        (["python", "-u", "-m", "torch.distributed.run", "x"], "torch.distributed.run"),
        (["python3.11", "-c", "secret"], "python3.11"),
        (["python3", "-X", "dev", "secret"], "python3"),
        (["python3"], "python3"),
        (["/opt/bin/ollama", "runner", "secret"], "ollama"),
        (["a" * 100], "a" * 64),
        ([], "kworker"),
    ],
)
def test_a_program_is_named_without_its_arguments(proc, words, program):
    nested(proc).process(901, pids=[901, 6], name="kworker", cmdline="\0".join(words))
    assert Pids(proc.folder).process(901, None).program == program


def test_the_pids_of_the_host_are_those_of_a_process_that_lives_there():
    pids = Pids()
    if pids.view != "same":
        pytest.skip("this machine is a container")
    assert pids.process(os.getpid(), 7)[:2] == (os.getpid(), user_name())
