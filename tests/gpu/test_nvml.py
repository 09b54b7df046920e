"""NVIDIA's cards: the real pynvml on a driver library that a file steers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockkit.gpu.nvml.health import LOST
from lockkit.gpu.pids import Pids
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from support.nvml import Host
from support.sleeper import sleeping

GIB = 1 << 30


# -- what a snapshot shows


def test_cards_that_are_slow_to_wake_wake_side_by_side(host):
    uuids = [host.card(index) for index in range(8)]
    host.row("meet", "nvmlDeviceGetHandleByIndex_v2 8")
    with host.looker() as looker:
        assert [(one["uuid"], one["faults"]) for one in looker.devices()] == [(uuid, []) for uuid in uuids]


def test_a_snapshot_shows_each_card(host):
    host.card(0)
    host.card(1, used=5 * GIB, gpu=37)
    with host.looker() as looker:
        idle, busy = looker.devices()
    assert idle == {
        "uuid": "GPU-0", "index": 0, "name": "NVIDIA H100 80GB HBM3", "memory": 80 * GIB,
        "reserved": 600 << 20, "used": 0, "utilisation": 0, "processes": [], "parent": None,
        "faults": [], "sliced": False,
        "aliases": [], "unreachable": False, "tolerated": GIB, "silent": False, "ignored": [],
    }  # fmt: skip
    assert (busy["uuid"], busy["index"], busy["used"], busy["utilisation"]) == ("GPU-1", 1, 5 * GIB, 37)


def test_a_snapshot_asks_each_card_five_questions_and_the_number_of_cards_once(host):
    for index in range(8):
        host.card(index)
    with host.looker() as looker:
        looker.devices()
        assert len(host.calls()) == 2 + 8 * 8
        looker.devices()
        again = host.calls()
    assert again[0] == "nvmlDeviceGetCount_v2"
    assert [call for call in again if call.endswith(" 0.-1")] == [
        f"{name} 0.-1"
        for name in (
            "nvmlDeviceGetMigMode",
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetUtilizationRates",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetFieldValues",
        )
    ]
    assert len(again) == 1 + 8 * 5


def test_a_process_comes_and_goes_and_its_memory_may_stay(host):
    host.card(0)
    with host.looker() as looker, sleeping() as sleeper:
        host.set(0, "process", f"{sleeper.pid} {3 * GIB}", f"{sleeper.pid} {GIB}", "4194303")
        host.set(0, "used", 4 * GIB)
        first, second = looker.devices()[0]["processes"]
        sleeper.kill()
    assert (first["memory"], second["memory"]) == (4 * GIB, None)
    if Pids().view == "same":
        assert first == {"pid": sleeper.pid, "user": user(), "program": "sleep", "memory": 4 * GIB}
        assert second == {"pid": 4194303, "user": None, "program": None, "memory": None}
    host.set(0, "process")
    with host.looker() as looker:
        (card,) = looker.devices()
    assert (card["processes"], card["used"]) == ([], 4 * GIB)


def user():
    from lockkit.values.identity import user_name

    return user_name()


def test_slices_are_devices_within_their_card(host):
    host.card(0, mig=1, gpu=None)
    host.card("0.1", name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", total=10 * GIB, reserved=0, used=GIB)
    host.card("0.4", name="NVIDIA H100 80GB HBM3 MIG 2g.20gb", total=20 * GIB, reserved=0)
    host.set("0.1", "process", "1 1024")
    host.card(1)
    with host.looker() as looker:
        card, small, large, other = looker.devices()
    assert (card["sliced"], other["sliced"], small["sliced"]) == (True, False, False)
    assert [one["parent"] for one in (card, small, large, other)] == [None, "GPU-0", "GPU-0", None]
    assert [one["index"] for one in (card, small, large, other)] == [0, 0, 0, 1]
    assert (small["uuid"], small["memory"], small["used"]) == ("MIG-0.1", 10 * GIB, GIB)
    assert [one["memory"] for one in small["processes"]] == [1024]
    assert (large["uuid"], large["processes"], large["utilisation"]) == ("MIG-0.4", [], None)


def test_a_slice_has_the_name_of_old_drivers_too_if_the_driver_tells_its_numbers(host):
    host.card(0, mig=1, gpu=None)
    host.card("0.1", gi=9, ci=0)
    host.card("0.2")
    host.card("0.3", gi=7, ci=1, uuid="MIG-GPU-0/7/1")  # as a driver before R470 calls it
    with host.looker() as looker:
        names = {one["uuid"]: one["aliases"] for one in looker.devices()}
        assert names == {"GPU-0": [], "MIG-0.1": ["MIG-GPU-0/9/0"], "MIG-0.2": [], "MIG-GPU-0/7/1": []}
        host.calls()
        looker.devices()
        assert "nvmlDeviceGetGpuInstanceId 0.1" not in host.calls()  # numbers do not change


# -- old drivers


def test_a_driver_without_the_reserve_counts_it_as_used(tmp_path, libraries):
    host = Host(tmp_path, libraries("nvmlDeviceGetMemoryInfo_v2"))
    host.card(0, used=GIB)
    with host.looker() as looker:
        (card,) = looker.devices()
        host.calls()
        looker.devices()
        assert len(host.calls()) == 6
    assert (card["memory"], card["reserved"], card["used"]) == (80 * GIB, 0, GIB + (600 << 20))


def test_a_driver_without_the_third_list_of_processes_has_the_second(tmp_path, libraries):
    host = Host(tmp_path, libraries("nvmlDeviceGetComputeRunningProcesses_v3"))
    host.card(0)
    host.set(0, "process", "1 2048")
    with host.looker() as looker:
        assert [one["memory"] for one in looker.devices()[0]["processes"]] == [2048]


def test_processes_that_no_call_lists_are_unknown_and_not_none(tmp_path, libraries):
    host = Host(
        tmp_path,
        libraries("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"),
    )
    host.card(0)
    with host.looker() as looker:
        assert looker.devices()[0]["processes"] is None


def test_a_driver_without_fields_has_older_calls_for_the_health(tmp_path, libraries):
    host = Host(tmp_path, libraries("nvmlDeviceGetFieldValues"))
    host.card(0, ecc=2, rows="0 0 1 1")
    host.card(1, ecc=0, rows="3 1 0 0")
    host.card(2)
    with host.looker() as looker:
        sick, well, plain = looker.devices()
    assert len(sick["faults"]) == 3
    assert well["faults"] == plain["faults"] == []


# -- health


@pytest.mark.parametrize(
    "field, value, told",
    [
        (230, 1, "the driver asks for a reset of the card"),
        (230, 2, "the driver asks for a restart of the host"),
        (230, 99, "the driver asks for recovery 99"),
        (4, 1, "1 memory error could not be corrected since the driver was loaded"),
        (4, 1 << 40, "1099511627776 memory errors could not be corrected since the driver was loaded"),
        (144, 1, "rows of its memory wait to be replaced by spare ones: the card must be reset"),
        (145, 1, "rows of its memory could not be replaced by spare ones: the card must be exchanged"),
    ],
)
def test_a_counter_that_is_not_zero_is_a_fault(host, field, value, told):
    host.card(0, **{f"field {field}": value})
    host.card(1)
    with host.looker() as looker:
        sick, well = looker.devices()
    assert (sick["faults"], well["faults"]) == ([told], [])


def test_a_card_without_counters_is_not_at_fault(host):
    host.card(0, **{f"field {field}": None for field in (230, 4, 144, 145)}, mig=None, gpu=None)
    with host.looker() as looker:
        assert looker.devices()[0]["faults"] == []


# -- a card that does not answer hides no other

CALLS = [
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
]


@pytest.mark.parametrize("call", CALLS)
def test_whatever_a_card_answers_it_is_listed_and_so_is_the_other(host, call):
    host.card(0, mig=1)
    host.card("0.0", total=10 * GIB)
    host.card(1)
    with host.looker() as looker:
        for number in (2, 3, 4, 6, 7, 13, 15, 16, 17, 999):
            host.set(0, f"fail {call}", number)
            found = looker.devices()
            assert found[0]["index"] == 0, number
            assert (found[-1]["uuid"], found[-1]["faults"]) == ("GPU-1", []), number
            assert found[0]["uuid"] == "GPU-0" or found[0]["faults"], number
            if number == 15 and any(made.startswith(f"{call} 0") for made in host.calls()):
                assert found[0]["faults"] == [LOST]
            looker.do("close")
        host.set(0, f"fail {call}")
        assert [(one["uuid"], one["faults"]) for one in looker.devices()] == [
            ("GPU-0", []), ("MIG-0.0", []), ("GPU-1", []),
        ]  # fmt: skip


def test_a_card_that_is_lost_under_way_keeps_its_name(host):
    host.card(0)
    host.card(1)
    with host.looker() as looker:
        looker.devices()
        for call in CALLS:
            host.set(0, f"fail {call}", 15)
        for _ in range(2):
            lost, well = looker.devices()
            assert (lost["uuid"], lost["faults"], lost["processes"]) == ("GPU-0", [LOST], None)
            assert (well["uuid"], well["faults"]) == ("GPU-1", [])
            assert (lost["unreachable"], well["unreachable"]) == (True, False)


@pytest.mark.parametrize(
    "key, unreachable", [("field 230", False), ("fail nvmlDeviceGetHandleByIndex_v2", True)]
)
def test_only_a_card_that_the_driver_does_not_reach_may_be_well_again_by_itself(host, key, unreachable):
    host.card(0)
    host.set(0, key, 4)  # the action: drain and reset; the error: no permission
    with host.looker() as looker:
        (card,) = looker.devices()
    assert card["faults"]
    assert card["unreachable"] is unreachable


def test_each_call_of_the_library_is_read_once_whatever_is_noted_meanwhile(host):
    log = Path(host.environ()["NVML_STATE"]).with_name("log")

    def note():
        for number in range(2000):
            with log.open("a") as file:
                file.write(f"call {number}\n")

    noting = Work(note)
    found = []
    until(lambda: found.extend(host.calls()) or len(found) == 2000)
    noting.result()
    assert found == [f"call {number}" for number in range(2000)]


def test_a_card_that_was_always_lost_has_no_name(host):
    host.card(0)
    host.set(0, "fail nvmlDeviceGetHandleByIndex_v2", 15)
    host.card(1)
    with host.looker() as looker:
        lost, well = looker.devices()
    assert (lost["uuid"], lost["index"], lost["faults"]) == ("", 0, [LOST])
    assert well["uuid"] == "GPU-1"


def test_a_name_that_is_no_text_is_unknown(host):
    host.card(0)
    state = Path(host.environ()["NVML_STATE"])
    state.write_bytes(state.read_bytes().replace(b"NVIDIA H100", b"\xff\xfe"))
    with host.looker() as looker:
        (card,) = looker.devices()
    assert (card["name"], card["uuid"], card["memory"]) == ("", "GPU-0", 80 * GIB)


# -- nothing can be said


@pytest.mark.parametrize(
    "number, told",
    [
        (4, "this user may not use NVIDIA's cards (ask the administrator"),
        (9, "NVIDIA's driver is not loaded (load it: sudo modprobe nvidia"),
        (
            18,
            (
                "NVIDIA's library and the loaded driver have different versions, "
                "as after an update (restart the host"
            ),
        ),
        (999, "NVIDIA's library NVML fails: Unknown Error (try nvidia-smi"),
    ],
)
def test_a_driver_that_cannot_be_used_says_what_to_do_and_is_asked_again(host, number, told):
    host.card(0)
    host.row("init", number)
    with host.looker() as looker:
        assert told in looker.do("snapshot")["unavailable"]
        assert looker.do("watch", "GPU-0") == "NoWatch"
        host.row("init")
        assert [one["uuid"] for one in looker.devices()] == ["GPU-0"]


def test_a_host_without_a_driver_or_a_card_says_what_to_do(tmp_path, libraries):
    libraries()
    with Host(tmp_path, None).looker() as looker:
        told = looker.do("snapshot")["unavailable"]
    assert told.startswith("NVIDIA's library libnvidia-ml.so.1 is not on this host (install NVIDIA's driver;")
    assert "docker run --gpus all" in told
    assert "LOCKKIT_GPU_SIMULATE=8" in told
    assert "--gpu-sim 8" in told
    with Host(tmp_path, libraries()).looker() as looker:
        assert looker.do("snapshot")["unavailable"].startswith("NVIDIA's driver finds no card (")


def test_a_driver_that_stops_answering_is_opened_again(host):
    host.card(0)
    with host.looker() as looker:
        looker.devices()
        host.row("fail nvmlDeviceGetCount_v2", 999)
        assert "NVML fails: Unknown Error" in looker.do("snapshot")["unavailable"]
        host.row("fail nvmlDeviceGetCount_v2")
        assert [one["uuid"] for one in looker.devices()] == ["GPU-0"]


def test_a_driver_that_hangs_is_given_up_and_answers_later(host):
    host.card(0)
    with host.looker() as looker:
        assert looker.do("look", 60) == ["GPU-0"]
        host.row("hang nvmlDeviceGetCount_v2", 3)
        told = looker.do("look", 0.2)["unavailable"]
        assert told.startswith("the driver of the device provider nvml has not answered within 0.2 s")
        host.row("hang nvmlDeviceGetCount_v2")
        until(lambda: looker.do("look", 60) == ["GPU-0"])  # it is not asked again before it has returned


STUCK = [True, "the driver has not answered about the card within 2.4 s: see the kernel's log, dmesg"]


@pytest.mark.parametrize("call", ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetFieldValues"])
def test_a_card_that_hangs_takes_only_itself_out(host, call):
    for index in range(3):
        host.card(index)
    well = {"GPU-0": [False], "GPU-2": [False]}
    with host.looker() as looker:
        host.set(1, f"stuck {call}", 1)
        assert looker.do("faulty", 3.0) == {**well, "GPU-1": STUCK}
        threads = looker.do("threads")
        assert looker.do("faulty", 3.0) == {**well, "GPU-1": STUCK}
        assert looker.do("threads") == threads, "a card that hangs is not asked again"
        host.set(1, f"stuck {call}")
        until(lambda: looker.do("faulty", 60) == {**well, "GPU-1": [False]})


def test_a_card_that_hangs_before_its_uuid_is_known_takes_only_itself_out(host):
    host.card(0)
    host.card(1)
    host.set(0, "stuck nvmlDeviceGetHandleByIndex_v2", 1)
    with host.looker() as looker:
        until(lambda: looker.do("faulty", 3.0) == {"0": STUCK, "GPU-1": [False]})
        host.set(0, "stuck nvmlDeviceGetHandleByIndex_v2")
        until(lambda: looker.do("faulty", 60) == {"GPU-0": [False], "GPU-1": [False]})


def test_where_all_cards_hang_the_driver_does(host):
    host.card(0)
    host.set(0, "stuck nvmlDeviceGetMemoryInfo_v2", 1)
    with host.looker() as looker:
        told = looker.do("look", 0.2)["unavailable"]
        assert told.startswith("the driver of the device provider nvml has not answered within 0.2 s")
        host.set(0, "stuck nvmlDeviceGetMemoryInfo_v2")
        until(lambda: looker.do("look", 60) == ["GPU-0"])


@pytest.mark.parametrize("failing", [False, True])
def test_the_driver_is_not_let_go_of_beside_a_call_that_hangs(host, failing):
    host.card(0)
    host.card(1)
    with host.looker() as looker:
        host.set(1, "stuck nvmlDeviceGetMemoryInfo_v2", 1)
        assert looker.do("faulty", 3.0)["GPU-1"] == STUCK
        if failing:
            host.row("fail nvmlDeviceGetCount_v2", 999)
            assert "NVML fails" in looker.do("look", 60)["unavailable"]
            host.row("fail nvmlDeviceGetCount_v2")
            assert looker.do("faulty", 3.0)["GPU-0"] == [False]
        looker.do("close")
        calls = host.calls()
        assert "nvmlShutdown" not in calls
        host.set(1, "stuck nvmlDeviceGetMemoryInfo_v2")
        until(lambda: calls.extend(host.calls()) or "nvmlShutdown" in calls)
        assert looker.do("look", 60) == ["GPU-0", "GPU-1"]


def test_a_watch_of_one_card_does_not_ask_another_one_that_hangs(host):
    host.card(0)
    host.card(1, mig=1)
    with host.looker() as looker:
        host.set(1, "stuck nvmlDeviceGetMaxMigDeviceCount", 1)
        assert looker.do("faulty", 3.0)["GPU-1"] == STUCK
        assert looker.do("watch", "GPU-0") == "NvmlWatch"
        host.set(0, "xid", 79)
        until(lambda: looker.do("faults", "GPU-0"))


@pytest.mark.parametrize(
    "path, text, told",
    [
        ("pynvml.py", "x = 1\n",
         ("pynvml.py is not NVIDIA's, or a very old one of theirs "
          "(rename it if it is yours; else: pip install")),
        ("pynvml/__init__.py", "from typing import *\n",
         "but of the old distribution pynvml or another one (pip uninstall -y pynvml"),
        ("pynvml.py", "raise ModuleNotFoundError(name='pynvml')\n",
         "the module pynvml is not installed (pip install \"lockkit[gpu]\"; to try"),
        ("pynvml.py", "import no_such_module\n",
         "the module pynvml cannot be imported: No module named 'no_such_module' (pip install"),
        ("pynvml.py", "1 / 0\n",
         "the module pynvml cannot be imported: ZeroDivisionError: division by zero (pip install"),
    ],
)  # fmt: skip
def test_another_module_called_pynvml_is_named_with_its_mend(host, tmp_path, path, text, told):
    host.card(0)
    place = tmp_path / "shadow" / path
    place.parent.mkdir(parents=True)
    place.write_text(text)
    with host.looker(
        PYTHONPATH=os.pathsep.join([str(tmp_path / "shadow"), os.environ.get("PYTHONPATH", "")])
    ) as looker:
        assert told in looker.do("snapshot")["unavailable"]


# -- watching


def test_a_watch_reports_each_xid_since_it_began(host):
    host.card(0)
    host.card(1)
    host.card(2)
    host.set(0, "xid", 62)
    with host.looker() as looker:
        assert looker.do("watch", "GPU-0", "GPU-1") == "NvmlWatch"
        assert looker.do("faults", "GPU-0") == []
        host.set(0, "xid", 62, 79, 48, 79)
        host.set(2, "xid", 79)
        assert looker.do("faults", "GPU-0") == [
            "Xid 79: the driver has reported an error of the card",
            "Xid 48: the driver has reported an error of the card",
        ]
        assert looker.do("faults", "GPU-1") == looker.do("faults", "GPU-2") == []


@pytest.mark.parametrize("number", [13, 31, 43, 45, 68, 109])
def test_an_xid_of_a_programs_making_is_no_fault_of_the_card(host, number):
    host.card(0)
    with host.looker() as looker:
        looker.do("watch", "GPU-0")
        host.set(0, "xid", number)
        assert looker.do("faults", "GPU-0") == []
        host.set(0, "xid", number, 95)
        assert looker.do("faults", "GPU-0") == ["Xid 95: the driver has reported an error of the card"]


def test_the_faults_of_a_card_are_those_of_its_slices(host):
    host.card(0, mig=1)
    host.card("0.0")
    with host.looker() as looker:
        looker.do("watch", "MIG-0.0")
        host.set(0, "xid", 79)
        assert looker.do("faults", "MIG-0.0") == ["Xid 79: the driver has reported an error of the card"]
        host.set(0, "field 145", 1)
        assert [len(one["faults"]) for one in looker.devices()] == [1, 1]


@pytest.mark.parametrize("call", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2"])
@pytest.mark.parametrize("number", [3, 13, 999])
def test_a_driver_that_cannot_watch_still_lists_its_cards(host, call, number):
    host.card(0)
    host.row(f"fail {call}", number)
    with host.looker() as looker:
        looker.do("watch", "GPU-0")
        host.set(0, "xid", 79)
        assert looker.do("faults", "GPU-0") == []
        assert [one["uuid"] for one in looker.devices()] == ["GPU-0"]
        looker.do("unwatch")


def test_a_lost_card_is_a_fault_of_its_watch(host):
    host.card(0)
    with host.looker() as looker:
        looker.do("watch", "GPU-0")
        host.row("fail nvmlEventSetWait_v2", 15)
        assert looker.do("faults", "GPU-0") == [LOST]


# -- the driver is open only as long as it must be


def test_the_driver_is_let_go_of_unless_a_watch_is_open(host):
    host.card(0)
    with host.looker() as looker:
        looker.do("close")
        assert host.calls() == []
        looker.devices()
        looker.do("watch", "GPU-0")
        host.calls()
        looker.do("close")
        assert host.calls() == []
        looker.do("unwatch")
        looker.do("unwatch")
        looker.do("close")
        assert host.calls() == ["nvmlEventSetFree", "nvmlShutdown"]
        assert [one["uuid"] for one in looker.devices()] == ["GPU-0"]
        assert host.calls()[0] == "nvmlInitWithFlags"


def test_a_close_does_not_wait_for_a_look_that_hangs(host):
    host.card(0)
    with host.looker() as looker:
        host.row("hang nvmlDeviceGetCount_v2", 60)
        assert "unavailable" in looker.do("look", 0.1)
        assert looker.do("close") is None
        assert "nvmlShutdown" not in host.calls(), "the look had ended before the close returned"


def test_a_look_under_way_lets_go_of_the_driver_at_its_end_if_that_was_asked_for(host):
    host.card(0)
    with host.looker() as looker:
        host.row("hang nvmlDeviceGetCount_v2", 2)
        assert "unavailable" in looker.do("look", 0.1)
        looker.do("close")
        calls = []
        until(lambda: calls.extend(host.calls()) or "nvmlShutdown" in calls)


def test_a_forked_child_opens_the_driver_itself_and_leaves_its_parents_alone(host):
    host.card(0)
    with host.looker() as looker:
        looker.devices()
        looker.do("watch", "GPU-0")
        host.set(0, "xid", 79)
        host.calls()
        assert looker.do("fork", "faults", "GPU-0") == []
        assert looker.do("fork", "close") is None
        assert looker.do("fork", "unwatch") is None
        assert host.calls() == []
        assert [one["uuid"] for one in looker.do("fork", "snapshot")] == ["GPU-0"]
        assert host.calls()[0] == "nvmlInitWithFlags"
        assert len(looker.do("faults", "GPU-0")) == 1
        assert [one["uuid"] for one in looker.devices()] == ["GPU-0"]
        assert "nvmlInitWithFlags" not in host.calls()


def test_nothing_of_nvidias_is_imported_before_the_first_look():
    code = (
        "import sys; from lockkit.plugins import PluginManager; made = PluginManager(); "
        "print([one.name for one in made.devices()], 'pynvml' in sys.modules, 'ctypes' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "['nvml'] False False\n"
