"""The cleanup of cards at release: NVIDIA's own module on a steered driver, a process for each program."""

from __future__ import annotations

import pytest

from lockkit.gpu.pids import Pids
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from lockkit.values.identity import look_at

GIB = 1 << 30

pytestmark = pytest.mark.skipif(
    Pids().view != "same", reason="the pids of the host are not those of this container"
)


def ended(pid):
    process = look_at(pid)
    return process is None or process.ended


@pytest.fixture
def program(host):
    host.card(0)
    host.card(1)
    with host.requester() as program:
        program.do("acquire", {"ids": ["GPU-0"], "timeout": 10})
        yield program


def test_a_child_process_is_ended_and_its_memory_waited_for(host, program):
    pid = program.do("child")
    host.set(0, "process", f"{pid} {3 * GIB}")
    host.set(0, "used", 3 * GIB)
    release = Work(lambda: program.do("release"))
    until(lambda: ended(pid))
    host.set(0, "process")  # the driver notices, and gives back the memory a moment later
    host.calls()
    until(lambda: any("MemoryInfo" in call for call in host.calls()))
    host.set(0, "used", 0)
    release.result(20)
    assert program.do("receipt", "GPU-0") == ["clean", 0, [], []]


def test_what_the_program_itself_has_is_told_at_once(host, program):
    pid = program.do("pid")
    host.set(0, "process", f"{pid} {3 * GIB}")
    host.set(0, "used", 3 * GIB)
    program.do("release")
    outcome, leftover, by, _ = program.do("receipt", "GPU-0")
    assert (outcome, leftover) == ("dirty", 3 * GIB)
    assert f"pid {pid} (requester.py), 3 GiB" in by[0]


LISTS = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")


@pytest.mark.parametrize("memory", [None, "8GiB"], ids=["whole", "share"])
@pytest.mark.parametrize("used", [0, GIB])
def test_a_program_on_a_card_without_a_list_of_processes_waits_for_nothing(host, used, memory):
    host.card(0)
    host.set(0, "fail", *(f"{call} 3" for call in LISTS))
    with host.requester() as program:
        program.do("acquire", {"ids": ["GPU-0"], "memory": memory, "timeout": 10})
        host.set(0, "used", used)
        until(lambda: any("RegisterEvents" in call for call in host.calls()))
        program.do("release")
        looks = [call for call in host.calls() if "MemoryInfo" in call]
        outcome, leftover, _, errors = program.do("receipt", "GPU-0")
    assert len(looks) == 1
    dirty = used and not memory
    assert (outcome, leftover) == ("dirty" if dirty else "unknown", None if memory else used)
    assert errors == ["the driver does not list processes"]


def test_a_card_that_is_lost_at_its_release_is_quarantined(host, program):
    host.set(0, "uncorrected", 1)
    host.set(0, "field 230", 1)  # the recovery action: reset
    program.do("release")
    outcome, _, _, _ = program.do("receipt", "GPU-0")
    assert outcome == "unknown"
    assert list(program.do("quarantine")) == ["GPU-0"]


def test_a_card_with_an_xid_since_the_grant_is_quarantined(host, program):
    until(lambda: any("RegisterEvents" in call for call in host.calls()))
    host.set(0, "xid", 79)
    until(lambda: program.do("faults", "GPU-0"))
    program.do("release")
    assert "79" in program.do("quarantine")["GPU-0"]
    assert program.do("left") == []


def test_a_driver_that_hangs_holds_up_no_release(host, program):
    host.row("hang", "nvmlDeviceGetMemoryInfo_v2 30")
    program.do("release")
    assert program.do("left") == []
    assert program.do("receipt", "GPU-0")[0] == "unknown"
    assert program.do("quarantine") == {"GPU-0": "its driver has not answered within 5 s"}


def test_a_free_card_that_the_driver_wants_to_reset_is_quarantined_by_the_request_that_finds_it(host):
    host.card(0)
    host.card(1)
    host.set(0, "field 230", 1)
    with host.requester() as program:
        assert program.do("acquire", {"timeout": 0})["members"] == ["GPU-1"]
        assert program.do("quarantine") == {"GPU-0": "the driver asks for a reset of the card"}


@pytest.mark.parametrize("number", [3, 13, 15])
def test_a_free_card_that_does_not_answer_for_a_moment_is_not_quarantined(host, number):
    host.card(0)
    host.card(1)
    with host.requester() as program:
        program.do("acquire", {"ids": ["GPU-1"], "timeout": 0})
        program.do("release")  # the driver is open now, and the card has its name
        for call in ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEccErrors"):
            host.set(0, f"fail {call}", number)
        assert "members" in program.do("acquire", {"timeout": 0})
        assert program.do("quarantine") == {}
