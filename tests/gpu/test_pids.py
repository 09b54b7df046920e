"""Pids of the host become pids of this namespace where that is proved, and unknown otherwise."""

from __future__ import annotations

import os

import pytest

from lockkit.devices import DeviceProcess
from lockkit.gpu.pids import Pids
from lockkit.identity import user_name

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
