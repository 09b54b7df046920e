"""``lockkit gpu ls`` and doctor's finding: simulated cards, a stand-in for NVIDIA's driver, no cards."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from rich.console import Console

from lockkit import connect
from lockkit.config import config
from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu import pool as gpu_pool
from lockkit.gpu.checking import finding
from lockkit.gpu.cli.tables import table_of
from lockkit.gpu.devices import BasicProvider, Device, DeviceProcess, Snapshot
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.joining import joined
from lockkit.gpu.judging import Receipt
from lockkit.gpu.known import Known
from lockkit.gpu.pids import Pids
from lockkit.gpu.quarantine import Quarantined, quarantine_faulty
from lockkit.gpu.receipts import put
from lockkit.hooks import hookimpl
from lockkit.notes.members import pool_name
from lockkit.plugins import PluginManager
from lockkit.testing.processes import until
from lockkit.values.identity import this_process
from support.nvml import Host, build

from .test_json import check

GIB = 1 << 30
BOB = {"pid": 4711, "user": "bob", "program": "jupyter", "memory": "12GiB"}


def besides_simulation(err):
    """The stderr of a run on simulated cards, without the line which says that they are simulated."""
    return re.sub(r"lockkit: \d+ GPUs? simulated.*: no real GPU is held\n", "", err)


def steer(lockkit, **state):
    folder = lockkit.folder / "state"
    folder.mkdir(exist_ok=True, mode=0o700)
    (folder / "simulated-gpus.json").write_text(json.dumps({key[1:]: card for key, card in state.items()}))


def test_each_card_is_shown_with_its_state_and_why(lockkit):
    steer(lockkit, _1={"processes": [BOB]}, _2={"used": "3GiB"}, _3={"faults": ["the card must be reset"]})
    told = lockkit("gpu", "ls", "--gpu-sim", "4").stdout.splitlines()
    assert re.split(r"\s{2,}", told[0]) == ["gpu", "model", "state", "user", "memory", "use", "why", "uuid"]
    assert [re.split(r"\s{2,}", row)[2:-1] for row in told[1:5]] == [
        ["free", "-", "0/23.5 GiB", "0 %"],
        ["busy (unmanaged)", "bob", "12/23.5 GiB", "100 %", "bob pid 4711 (jupyter), 12 GiB"],
        ["busy (unmanaged)", "-", "3/23.5 GiB", "0 %", "3 GiB in use by no process that is seen"],
        ["faulty", "-", "0/23.5 GiB", "0 %", "the card must be reset"],
    ]
    assert told[5:] == ["4 GPUs: 1 free, 2 busy (unmanaged), 1 faulty"]


def test_the_document_has_all_that_is_known(lockkit):
    steer(lockkit, _1={"processes": [BOB, {"memory": 5}], "utilisation": 7})
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    idle, busy = check(lockkit.json("gpu", "ls"))["gpus"]
    assert (idle["state"], idle["processes"], idle["used_bytes"]) == ("free", [], 0)
    assert (busy["state"], busy["utilisation_percent"], busy["used_bytes"]) == ("busy", 7, 12 * GIB + 5)
    assert busy["processes"] == [
        {"pid": 4711, "user": "bob", "program": "jupyter", "memory_bytes": 12 * GIB},
        {"pid": None, "user": None, "program": None, "memory_bytes": 5},
    ]
    assert check(lockkit.json("gpu", "ls", "--gpu-sim", "3"))["gpus"][0]["uuid"] == idle["uuid"]


def test_a_watch_on_a_terminal_with_few_rows_counts_the_cards_that_are_left_out(lockkit, tty):
    terminal = tty(*lockkit.line("gpu", "ls", "--gpu-sim", "12", "--watch"), LINES="10", COLUMNS="130")
    hidden = int(terminal.expect(r"\.\.\. and (\d+) more: lockkit gpu ls").split()[2])
    terminal.expect(r"\n(\x1b\[[\d;]*m)*12 GPUs: 12 free")  # at the left, as without --watch
    assert 0 < hidden < 12
    terminal.type("\x03")
    assert terminal.wait() == 0


def test_watching_shows_what_changes_and_ends_with_ctrl_c(lockkit):
    process = lockkit.start("gpu", "ls", "--gpu-sim", "1", "--watch", "--interval", "50ms", "--json")
    assert json.loads(process.stdout.readline())["gpus"][0]["state"] == "free"
    steer(lockkit, _0={"processes": [BOB]})
    while json.loads(process.stdout.readline())["gpus"][0]["state"] == "free":
        pass
    (lockkit.folder / "state/simulated-gpus.json").write_text("{")
    told = json.loads(process.stderr.readline())
    assert (told["schema"], told["error"]) == ("lockkit.error/1", "DevicesUnavailable")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=40) == 0


def rendered(width, *devices, **known):
    of_store = {f"GPU-{name}": facts for name, facts in known.items()}
    unlocked = {one.uuid: one.processes or () for one in devices}
    console = Console(width=width, file=io.StringIO())
    console.print(table_of(joined(Snapshot(0.0, devices), of_store, unlocked=unlocked), width))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [30, 50, 60, 80, 119, 120, 200])
def test_the_users_of_a_card_and_how_many_wait_for_it_are_shown_on_every_terminal(width):
    card = Device("GPU-a", 0, "NVIDIA H100", 80 * GIB, 0, 12 * GIB, 97, (DeviceProcess(7, "bob", "sh", GIB),))
    ann, eve = (
        ClaimInfo("x", "1" * 12, state, Owner(user, "box", 7, program="train"), 1, 0, weight=10, capacity=10)
        for user, state in (("ann", "HELD"), ("eve", "WAITING"))
    )
    told = rendered(width, card, a=Known((ann,), waiters=(eve,)))
    assert max(map(len, told.splitlines())) <= width
    flat = " ".join(told.split())
    assert "ann" in flat.replace("ann@box", "")
    assert {"bob", "lock)", "waits"} <= set(flat.replace(",", " ").split())
    assert "eve" not in flat
    alone = " ".join(rendered(width, card).split())
    assert "bob" in alone.replace("bob pid", "")
    assert "(no" not in alone


def test_who_holds_a_card_who_uses_it_and_how_many_wait_is_in_the_document(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    steer(lockkit, _0={"processes": [BOB]}, _1={"processes": [BOB]})
    state = lockkit.folder / "state"
    with (
        connect(f"sqlite:{state}/lockkit.db", gpu_simulate=2, state_dir=str(state)) as client,
        gpu_pool(client).acquire(ids=["0"], allow_busy=True) as leases,
    ):
        waiters = [
            lockkit.start("run", "--gpu", count, "--private", "-q", "--", "true") for count in ("1", "2")
        ]
        gate = pool_name(f"gpu-sim/{os.uname().nodename}")
        lockkit.until(lambda: len(client.inspect(gate).claims) == 2)
        lockkit.until(lambda: client.inspect(leases[0].name).waiters)
        document = check(lockkit.json("gpu", "ls"))
        fleet = check(lockkit.json("gpu", "ls", "--all-hosts"))
        told = lockkit("gpu", "ls").stdout
        for one in waiters:
            one.terminate()
            one.wait(40)
    held, busy = document["gpus"]
    me = this_process().user
    assert (held["users"], held["unmanaged_users"], held["waiting"]) == ([me], ["bob"], 1)
    assert (busy["users"], busy["unmanaged_users"], busy["waiting"]) == ([], ["bob"], 0)
    assert document["waiting"] == 2
    assert (fleet["waiting"], [host["waiting"] for host in fleet["hosts"]]) == (2, [2])
    assert f"  {me}, bob (no lock)  " in told
    assert "; 1 waits for it" in told
    assert told.endswith("2 GPUs: 1 held, 1 busy (unmanaged); 2 requests wait\n")


def test_a_narrow_terminal_keeps_everything_that_matters():
    card = Device(
        "GPU-1f3a",
        0,
        "NVIDIA H100 80GB HBM3",
        80 * GIB,
        0,
        12 * GIB,
        97,
        (DeviceProcess(4711, "bob", "jupyter", 12 * GIB),),
    )
    for width in (30, 59, 80, 119, 160):
        told = rendered(width, card)
        assert max(map(len, told.splitlines())) <= width
        flat = re.sub(r"[\s│─]+", "", told)
        assert "bob" in flat
        assert ("GPU-1f3a" in flat) == (width < 60 or width >= 120)
    assert "  busy (unmanaged), bob, 12/80 GiB, 97 %" in rendered(59, card)


def test_no_word_is_broken_at_80_columns_and_a_uuid_is_as_short_as_commands_take_it():
    busy = Device(
        "GPU-54a033e8-0001",
        0,
        "NVIDIA H100 80GB HBM3",
        80 * GIB,
        0,
        512 << 20,
        100,
        (DeviceProcess(4711, "ann-of-physics", "train_the_model.py", 12 * GIB),),
    )
    told = rendered(80, busy).split()
    for word in ("busy", "(unmanaged)", "ann-of-physics", "(train_the_model.py),", "512", "MiB/80", "GiB"):
        assert word in told
    assert "model: NVIDIA H100 80GB HBM3\n" in re.sub(" +\n", "\n", rendered(80, busy))
    assert "NVIDIA" in rendered(80, busy, busy._replace(name="A100")).split()
    assert "GPU-54a033e8" in rendered(160, busy).split()
    assert "GPU-54a033e8-0002" in rendered(160, busy, busy._replace(uuid="GPU-54a033e8-0002")).split()


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("width", [60, 70, 80, 100, 119, 120, 140])
def test_no_word_of_state_host_or_why_is_broken_on_any_terminal_of_60_columns_or_more(
    width, boxed, monkeypatch
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: boxed)
    busy = Device("GPU-a", 0, "H100", 80 * GIB, 0, 0, 97, (DeviceProcess(7, "bob", "jupyter", GIB),))
    marked = Known(quarantine=Quarantined("GPU-b", "it hums", "ann@box", 1.0))
    known = {"GPU-b": marked}
    found = joined(Snapshot(0.0, (busy, busy._replace(uuid="GPU-b", index=1, processes=()))), known)
    console = Console(width=width, file=io.StringIO())
    for hosts in ((), ("node-with-a-long-name-17", "box")):
        console.print(table_of(found, width, hosts))
    told = console.file.getvalue().replace(",", " ").split()
    words = ("(unmanaged)", "quarantined", "(jupyter)", "node-with-a-long-name-17")
    assert [told.count(word) for word in words] == [2, 4, 2, 1]


def test_the_slices_of_a_card_are_indented_under_it():
    parent = Device("GPU-a", 3, "H100", 80 * GIB, 0, 0, None, (), sliced=True)
    told = rendered(
        160, parent, Device("MIG-b", 3, "MIG 1g", 10 * GIB, 0, None, None, None, parent="GPU-a")
    ).splitlines()
    assert next(row for row in told if "divided into slices" in row).startswith("3 ")
    assert next(row for row in told if "MIG-b" in row).startswith("  3 ")
    assert "?/10 GiB" in "".join(told)


def test_a_host_without_cards_is_refused_with_what_to_do(lockkit):
    lockkit.env["LD_LIBRARY_PATH"] = "/nowhere"
    done = lockkit("gpu", "ls")
    assert done.returncode == 78
    if find_spec("pynvml") is None:
        assert "the module pynvml is not installed" in done.stderr
    assert "--gpu-sim 8" in done.stderr
    assert done.stderr.count("\n") == 1
    told = check(json.loads(lockkit("gpu", "ls", "--json").stderr))
    assert (told["error"], told["exit_code"]) == ("DevicesUnavailable", 78)
    assert lockkit("gpu", "ls", "--gpu-sim", "65").returncode == 64


@pytest.fixture
def nvidia(lockkit, tmp_path):
    """A host with NVIDIA's driver, on which commands run; it has no card yet."""
    if shutil.which("cc") is None or find_spec("pynvml") is None:
        pytest.skip("needs a C compiler and nvidia-ml-py")
    host = Host(build(tmp_path / "driver"), tmp_path / "driver")
    lockkit.env |= {key: host.environ()[key] for key in ("LD_LIBRARY_PATH", "NVML_STATE")}
    return host


@pytest.mark.parametrize(
    "trouble, code, told",
    [
        ("init 9", 69, "NVIDIA's driver is not loaded"),
        ("init 18", 69, "NVIDIA's library and the loaded driver have different versions"),
        ("init 999", 69, "NVIDIA's library NVML fails"),
        ("hang nvmlDeviceGetCount_v2 60", 69, "has not answered within 0.2 s"),
        ("init 4", 78, "this user may not use NVIDIA's cards"),
        ("count 0", 78, "NVIDIA's driver finds no card"),
    ],
)
def test_only_trouble_that_no_wait_mends_is_a_mistake_of_the_configuration(
    lockkit, nvidia, trouble, code, told
):
    nvidia.card(0)
    nvidia.row(*trouble.split(" ", 1))
    lockkit.env["LOCKKIT_GPU_PATIENCE"] = "200ms" if "hang" in trouble else "20s"
    for command in (["run", "--gpu", "1", "--private", "--", "true"], ["gpu", "ls"]):
        done = lockkit(*command)
        assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    done = lockkit("run", "--gpu", "1", "--private", "--no-wait", "--json", "--", "true")
    refused = check(json.loads(done.stderr))
    assert refused["error"] == ("DevicesNotReady" if code == 69 else "DevicesUnavailable")


@pytest.mark.parametrize("options", [("--no-wait",), ("--timeout", "1s")])
def test_a_slow_look_is_told_in_terms_of_cards(lockkit, nvidia, options):
    nvidia.card(0)
    # A look takes 3 s: longer than a request without waiting, or with 1 s, has after its first one.
    nvidia.row("hang", "nvmlDeviceGetCount_v2 3")
    done = lockkit("run", "--gpu", "1", "--private", *options, "--", "true")
    assert done.returncode in (69, 124)
    assert "the driver of the GPUs" in done.stderr, done.stderr
    assert not re.search("chooser|pool|member", done.stderr), done.stderr


@pytest.mark.skipif(Pids().view == "unknown", reason="the programs on cards cannot be told here")
def test_a_desktop_and_an_mps_server_keep_no_card_busy_if_they_are_ignored(lockkit, nvidia):
    nvidia.card(0, used=1500 << 20)  # a desktop, which is not among the programs that compute
    nvidia.card(1, used=30 << 20)
    server = lockkit.folder / "nvidia-cuda-mps-server"
    server.symlink_to(shutil.which("sleep"))
    process = subprocess.Popen([str(server), "60"])
    try:
        nvidia.set(1, "process", f"{process.pid} {30 << 20}")
        job = ("run", "--gpu", "2", "--private", "--no-wait", "--", "sh", "-c", "echo $LOCKKIT_GPU_UUIDS")
        assert lockkit(*job).returncode == 75
        lockkit.env["LOCKKIT_CONFIG"] = str(lockkit.folder / "lockkit.toml")
        (lockkit.folder / "lockkit.toml").write_text(
            '[gpu]\nignore = ["nvidia-cuda-mps-server"]\nignore_memory = "2GiB"\n'
        )
        assert [one["state"] for one in lockkit.json("gpu", "ls")["gpus"]] == ["free", "free"]
        assert "2 GPUs: 2 free" in lockkit("doctor").stdout
        done = lockkit(*job)
        assert (done.returncode, sorted(done.stdout.strip().split(","))) == (0, ["GPU-0", "GPU-1"]), (
            done.stderr
        )
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("call", ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetHandleByIndex_v2"])
def test_a_request_that_no_card_can_meet_names_the_faults(lockkit, nvidia, call):
    for index in range(2):
        nvidia.card(index)
    nvidia.set(0, f"fail {call}", 15)
    done = lockkit("run", "--gpu", "2", "--private", "--", "true")
    assert (done.returncode, "GPU 0 (" in done.stderr, "has fallen off the bus" in done.stderr) == (
        78,
        True,
        True,
    )
    nvidia.set(1, f"fail {call}", 15)
    done = lockkit("run", "--gpu", "1", "--private", "--", "true")
    assert done.returncode == 78
    assert "none of the 2 of this host will do; all 2: the card has fallen off the bus" in done.stderr


def test_a_card_without_memory_is_given_to_nobody(lockkit, nvidia):
    nvidia.card(0, total=0, reserved=0)
    nvidia.card(1)
    done = lockkit("run", "--gpu", "1", "--private", "--", "sh", "-c", "echo $LOCKKIT_GPU_UUIDS")
    assert (done.returncode, done.stdout) == (0, "GPU-1\n"), done.stderr
    assert lockkit.json("gpu", "ls")["gpus"][0]["state"] in ("faulty", "quarantined")


@pytest.mark.parametrize("setting", ["environment", "file"])
def test_a_simulation_that_was_forgotten_is_refused_on_a_host_with_cards(lockkit, nvidia, setting):
    nvidia.card(0)
    where = "LOCKKIT_GPU_SIMULATE"
    if setting == "environment":
        lockkit.env[where] = "8"
    else:
        where = str(lockkit.folder / "lockkit.toml")
        (lockkit.folder / "lockkit.toml").write_text("[gpu]\nsimulate = 8\n")
        lockkit.env["LOCKKIT_CONFIG"] = where
    job = ("--private", "--", "sh", "-c", "echo $LOCKKIT_GPU_UUIDS")
    done = lockkit("run", "--gpu", "1", *job)
    assert (done.returncode, done.stdout) == (78, "")
    assert f"8 GPUs would be simulated ({where}), but this host has real ones" in done.stderr
    assert f"({'unset' if setting == 'environment' else 'remove gpu.simulate from'} {where}; " in done.stderr
    assert "--gpu-sim 8" in done.stderr
    done = lockkit("run", "--gpu", "1", "--gpu-sim", "4", *job)
    assert (done.returncode, "GPU-0" in done.stdout) == (0, False)
    assert done.stderr == "lockkit: 4 GPUs simulated: no real GPU is held\n"
    done = lockkit("run", "--gpu", "1", "--gpu-sim", "0", *job)
    assert (done.returncode, done.stdout, done.stderr) == (0, "GPU-0\n", "")


def test_a_run_on_simulated_cards_says_so_unless_it_is_quiet(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    words = ("run", "--gpu", "1", "--private", "--", "true")
    assert lockkit(*words).stderr == "lockkit: 2 GPUs simulated (LOCKKIT_GPU_SIMULATE): no real GPU is held\n"
    assert lockkit(*words[:4], "-q", *words[4:]).stderr == ""
    notice = check(json.loads(lockkit(*words[:4], "--json", *words[4:]).stderr.splitlines()[0]))
    assert "2 GPUs simulated" in notice["message"]


def test_the_cards_of_nvidias_driver_are_listed(lockkit, nvidia):
    nvidia.card(0)
    nvidia.card(1)
    nvidia.set(1, "fail nvmlDeviceGetHandleByIndex_v2", 15)
    free, lost = check(lockkit.json("gpu", "ls"))["gpus"]
    assert (free["uuid"], free["state"]) == ("GPU-0", "free")
    assert (lost["uuid"], lost["state"], lost["index"]) == (None, "faulty", 1)
    assert [one["message"] for one in lockkit.json("doctor")["findings"] if one["check"] == "gpu"] == [
        "2 GPUs: 1 free, 1 faulty; GPU 1: the card has fallen off the bus (GPU is lost): restart the host"
    ]


def test_a_card_without_a_list_of_processes_is_judged_by_its_memory_and_says_so(lockkit, nvidia):
    nvidia.card(0)
    versions = ("v3", "v2")
    nvidia.set(0, "fail", *(f"nvmlDeviceGetComputeRunningProcesses_{one} 3" for one in versions))
    done = lockkit("run", "--gpu", "1", "--private", "--", "true")
    assert done.returncode == 0, done.stderr
    looks = [call for call in nvidia.calls() if "MemoryInfo" in call]
    (card,) = check(lockkit.json("gpu", "ls"))["gpus"]
    assert (card["state"], card["processes"]) == ("free", None)
    receipt = card["receipt"]
    assert (receipt["outcome"], receipt["leftover_bytes"]) == ("unknown", 0)
    assert receipt["errors"] == ["the driver does not list processes"]
    assert len(looks) < 15, "the release has waited for memory that was back already"


# -- doctor


class Cards(BasicProvider):
    def __init__(self, *devices):
        self.name, self.devices = "theirs", devices

    def snapshot(self):
        return Snapshot(0.0, self.devices)

    @hookimpl
    def lockkit_devices(self):
        return [self]


@pytest.mark.parametrize(
    "devices, driver, severity, told",
    [
        ((Device("a", 0, used=0, processes=()),), False, "ok", "1 GPU, none busy or faulty"),
        ((Device("a", 7, faults=("it hums",)),), False, "warning", "1 GPU, 1 faulty; GPU 7: it hums"),
        ((), False, "ok", "no GPUs: there is no GPU on this host"),
        ((), True, "warning", "no GPU can be seen: there is no GPU on this host"),
    ],
)
def test_doctor_has_one_finding_about_gpus(tmp_path, devices, driver, severity, told):
    place = tmp_path / "version"
    if driver:
        place.touch()
    loaded = config.load(environ={}, cwd=tmp_path, etc=tmp_path / "none", home=tmp_path)
    plugins = PluginManager([Cards(*devices)], disabled=["gpu"], discover=tuple)
    found = finding(loaded, plugins, driver=place)
    assert (found.check, found.severity, found.message) == ("gpu", severity, told)


def test_doctor_says_that_cards_are_simulated(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    assert "ok: 2 GPUs: 2 free (simulated)\n" in lockkit("doctor").stdout


def test_doctor_counts_holds_as_ls_does_and_calls_no_card_free_without_the_store(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    process = lockkit.start("run", "--gpu", "2", "--private", "--", "sh", "-c", "echo runs; sleep 60")
    assert process.stdout.readline() == "runs\n"
    assert "ok: 2 GPUs: 2 held (simulated)\n" in lockkit("doctor").stdout
    assert "2 GPUs: 2 held\n" in lockkit("gpu", "ls").stdout
    told = lockkit("doctor", "--url", "redis://127.0.0.1:1").stdout
    assert "ok: 2 GPUs, none busy or faulty (simulated)\n" in told


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["words", "json"])
@pytest.mark.parametrize("command", ["doctor", "recover", "recover --yes"])
def test_a_driver_that_hangs_ends_no_command_later_and_is_told_of(lockkit, nvidia, command, as_json):
    nvidia.card(0)
    with connect(f"sqlite:{lockkit.folder}/state/lockkit.db") as client:
        quarantine_faulty(client, os.uname().nodename, "GPU-0", "Xid 79", this_process(), ["GPU-0"])
    nvidia.row("hang", "nvmlDeviceGetMemoryInfo_v2 300")
    done = lockkit(*command.split(), *as_json)
    assert "the driver of the device provider nvml has not answered within 5 s" in done.stdout
    if command == "doctor" and as_json:
        (found,) = [one for one in json.loads(done.stdout)["findings"] if one["check"] == "gpu"]
        assert found["severity"] == "warning"


def test_in_a_container_that_does_not_know_its_host_doctor_warns_and_ls_lists_cards(lockkit, nvidia):
    nvidia.card(0)
    lockkit.env["container"] = "podman"
    (found,) = [one for one in lockkit.json("doctor")["findings"] if one["check"] == "gpu"]
    assert found["severity"] == "warning"
    assert found["message"].startswith(
        "1 GPU, none busy or faulty; this process runs in a container (podman)"
    )
    assert "docker run -e LOCKKIT_GPU_HOST=$(hostname)" in found["hint"]
    told = check(lockkit.json("gpu", "ls"))
    assert (told["host"], [one["state"] for one in told["gpus"]]) == (None, ["unknown"])
    assert "LOCKKIT_GPU_HOST" in told["remarks"][0]
    words = lockkit("gpu", "ls").stdout
    assert "1 GPU: 1 unknown" in words
    assert "set LOCKKIT_GPU_HOST to the host's name" in words
    assert lockkit("gpu", "quarantine", "0", "--reason", "x").returncode == 78
    lockkit.env["LOCKKIT_GPU_HOST"] = "box"
    (found,) = [one for one in lockkit.json("doctor")["findings"] if one["check"] == "gpu"]
    assert (found["severity"], found["message"]) == ("ok", "1 GPU: 1 free")


# -- quarantine


def test_a_card_is_quarantined_for_everybody_and_cleared_again(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    first, second = (card["uuid"] for card in lockkit.json("gpu", "ls")["gpus"])
    document = check(lockkit.json("gpu", "quarantine", "0", "--reason", "it hums"))
    assert (document["uuid"], document["quarantine"]["reason"]) == (first, "it hums")
    card, other = check(lockkit.json("gpu", "ls"))["gpus"]
    assert (card["state"], card["quarantine"], other["state"]) == (
        "quarantined",
        document["quarantine"],
        "free",
    )
    told = lockkit("gpu", "ls").stdout
    assert re.search(r"quarantined .* quarantined by \S+@\S+: it hums", told)
    assert told.endswith("2 GPUs: 1 free, 1 quarantined\n")
    again = lockkit("gpu", "quarantine", "0", "--reason", "it hums").stdout
    assert re.search(r"; this replaces another mark: it was quarantined by \S+@\S+: it hums; to give", again)
    document = check(lockkit.json("gpu", "quarantine", "0", "--reason", "it hums"))
    done = lockkit("gpu", "quarantine", second[:10], "--reason", "it smells")
    assert done.stdout.endswith(f": it smells; to give it back: lockkit gpu clear {second}\n")
    assert check(lockkit.json("gpu", "clear", first))["quarantine"] == document["quarantine"]
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "1"
    assert lockkit("gpu", "clear", second).stdout.startswith(
        f"{second} can be given out again; it was quarantined by"
    )
    again = lockkit("gpu", "clear", "0")
    assert (again.returncode, again.stdout) == (1, f"{first} was not quarantined\n")


def test_why_a_card_is_given_back_is_told(lockkit):
    sim = ("--gpu-sim", "1")
    lockkit("gpu", "quarantine", "0", "--reason", "it hums", *sim)
    document = check(lockkit.json("gpu", "clear", "0", "--reason", "fan replaced", *sim))
    assert (document["reason"], document["quarantine"]["reason"]) == ("fan replaced", "it hums")
    lockkit("gpu", "quarantine", "0", "--reason", "it hums", *sim)
    told = lockkit("gpu", "clear", "0", "--reason", "fan replaced", *sim).stdout
    assert re.search(r" can be given out again: fan replaced; it was quarantined by \S+: it hums\n", told)


def test_a_card_that_is_given_back_while_it_is_held_is_given_out_when_its_holder_has_released_it(lockkit):
    sim = ("--gpu-sim", "1")
    holder = lockkit.start("run", "--gpu", "1", *sim, "--", "sleep", "60")
    lockkit.until(lambda: [one["state"] for one in lockkit.json("gpu", "ls", *sim)["gpus"]] == ["held"])
    lockkit("gpu", "quarantine", "0", "--reason", "it hums", *sim)
    told = lockkit("gpu", "clear", "0", "--reason", "fan replaced", *sim).stdout
    assert (
        " can be given out again when its holder has released it: fan replaced; it was quarantined by" in told
    )
    holder.terminate()
    holder.wait(40)


@pytest.mark.parametrize("line", [["quarantine", "0", "--reason", "x"], ["clear", "0"]])
def test_a_mark_on_a_store_that_ends_with_the_command_is_refused(lockkit, line):
    done = lockkit("gpu", *line, "--gpu-sim", "1", "--url", "memory:")
    assert (done.returncode, done.stdout) == (78, "")
    assert "works only within one process" in done.stderr


def test_a_mark_on_a_private_store_says_that_other_users_do_not_see_it(lockkit):
    line = ("gpu", "quarantine", "0", "--reason", "x", "--gpu-sim", "1")
    done = lockkit(*line)
    assert done.returncode == 0
    assert "other users do not see this mark" in done.stderr
    assert "lockkit docs all-users" in done.stderr
    (row,) = map(json.loads, lockkit(*line, "--json").stderr.splitlines())
    assert check(row)["schema"] == "lockkit.notice/1"


@pytest.mark.parametrize(
    "line, code, told",
    [
        (["quarantine", "7", "--reason", "x"], 78, "there is no GPU '7' (the GPUs are 0"),
        (["quarantine", "0"], 64, "--reason"),
        (["quarantine", "0", "--reason", "a\nb"], 64, "--reason"),
        (["clear", "GPU-none"], 78, "there is no GPU 'GPU-none'"),
    ],
)
def test_a_wrong_card_or_reason_is_refused(lockkit, line, code, told):
    done = lockkit("gpu", *line, "--gpu-sim", "1")
    assert done.returncode == code
    assert told in done.stderr


def test_a_store_that_does_not_answer_hides_no_card(lockkit):
    pytest.importorskip("redis")
    done = lockkit("gpu", "ls", "--gpu-sim", "1", "--url", "redis://127.0.0.1:1")
    assert done.returncode == 0
    assert "who holds which GPU, and which are quarantined, is unknown: " in done.stdout
    assert "1 GPU: 1 unknown" in done.stdout


def test_no_card_is_free_for_a_user_who_may_not_read_the_store(lockkit, monkeypatch):
    steer(lockkit, _1={"processes": [BOB]})
    told = (
        "from lockkit import Client\nfrom lockkit.errors import PermissionDenied\n"
        "from lockkit.cli.main import run\nimport sys\n"
        'def refuse(*_): raise PermissionDenied("locks.db: no", hint="sudo usermod -aG gpu ann")\n'
        "Client.record = Client.inspect = refuse\nraise SystemExit(run(sys.argv[1:]))"
    )
    line = [sys.executable, "-c", told, "gpu", "ls", "--gpu-sim", "2"]
    text, document = (
        subprocess.run(
            [*line, *more], env=lockkit.env, cwd=lockkit.folder, capture_output=True, text=True, check=True
        ).stdout
        for more in ([], ["--json"])
    )
    assert [card["state"] for card in json.loads(document)["gpus"]] == ["unknown", "unknown"]
    assert "who holds it is unknown; bob pid 4711 (jupyter), 12 GiB" in text
    assert "2 GPUs: 2 unknown\n" in text
    assert text.endswith("locks.db: no (sudo usermod -aG gpu ann)\n")


def test_holders_and_receipts_are_shown_with_the_card(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    uuids = [card["uuid"] for card in lockkit.json("gpu", "ls")["gpus"]]
    host = os.uname().nodename
    steer(lockkit, _1={"used": "3GiB"})
    with connect(f"sqlite:{lockkit.folder}/state/lockkit.db") as client:
        put(client, simulated(host), Receipt(uuids[1], "dirty", 3 * GIB, fence=5, by="ann@box", at=1000.0))
        with client.pool(f"gpu-sim/{host}", dict.fromkeys(uuids, 24064)).acquire(
            each=24064, among=[uuids[0]]
        ):
            held, dirty = check(lockkit.json("gpu", "ls"))["gpus"]
            told = lockkit("gpu", "ls").stdout
    assert (held["state"], dirty["state"]) == ("held", "dirty")
    assert [one["owner"]["pid"] for one in held["holders"]] == [os.getpid()]
    assert (dirty["receipt"]["leftover_bytes"], dirty["receipt"]["fence"], dirty["holders"]) == (
        3 * GIB,
        5,
        [],
    )
    assert f"pid {os.getpid()}" in told
    assert told.endswith("2 GPUs: 1 held, 1 dirty\n")


def test_what_a_holder_declared_and_uses_is_shown_by_ls_status_and_explain(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "1"
    steer(lockkit, _0={"processes": [{"pid": os.getpid(), "memory": "12GiB"}]})
    state = lockkit.folder / "state"
    with (
        # Not watched: on a slow machine its own look would follow the last command, and replace its news.
        connect(
            f"sqlite:{state}/lockkit.db", gpu_simulate=1, gpu_watch=False, state_dir=str(state)
        ) as client,
        gpu_pool(client).acquire(memory="8GiB", allow_busy=True, reason="evaluation") as leases,
    ):
        news = {"used": 12 * GIB, "idle_since": time.time() - 1500, "at": time.time()}
        client._annotate(leases[0].name, leases[0].claim_id, {"lockkit": {"gpu": news}})
        (card,) = check(lockkit.json("gpu", "ls"))["gpus"]
        listed, status, explained = (
            lockkit(*line).stdout for line in (("gpu", "ls"), ("status",), ("explain", leases[0].name))
        )
    (use,) = card["uses"]
    assert (use["declared_bytes"], use["used_bytes"], use["more_than_declared"]) == (8 * GIB, 12 * GIB, True)
    assert use["idle_seconds"] == pytest.approx(1500, abs=60)
    words = "8 GiB declared, 12 GiB used, more than declared, idle for 25 min"
    assert f"{words}, for: evaluation" in listed
    assert words.replace(", idle", "; idle").replace("declared, 12", "declared; 12") in status
    assert f"Its holder told last of the GPU: {words}." in explained


def test_a_program_without_a_lock_is_named_on_a_card_that_is_held(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "1"
    state = lockkit.folder / "state"
    with (
        connect(f"sqlite:{state}/lockkit.db", gpu_simulate=1, state_dir=str(state)) as client,
        gpu_pool(client).acquire(),
    ):
        steer(lockkit, _0={"processes": [{"pid": os.getpid(), "memory": "1GiB"}, BOB]})
        told = lockkit("gpu", "ls").stdout
    assert "1 GiB used; and without a lock: bob pid 4711 (jupyter), 12 GiB" in told


def test_a_holder_that_was_killed_is_not_shown_as_if_it_ran(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "1"
    line = "setsid sh -c 'echo $$; exec sleep 100' & wait"
    process = lockkit.start("run", "--gpu", "1", "--", "sh", "-c", line)
    left = int(process.stdout.readline())
    try:
        process.kill()
        process.wait(timeout=40)
        told = lockkit("gpu", "ls").stdout
        waiting = lockkit("run", "--gpu", "1", "--no-wait", "--", "true").stderr
    finally:
        os.kill(left, signal.SIGKILL)
    for words in (told, waiting):
        assert re.search(
            rf"pid {process.pid} \(\S+\), ended, kept by (pid \d+ \(\S+\) and )*pid {left} \(sleep\)", words
        ), words


def test_a_card_of_a_request_that_waits_for_more_says_so_and_the_request_is_counted(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    state = lockkit.folder / "state"
    with (
        connect(f"sqlite:{state}/lockkit.db", gpu_simulate=2, state_dir=str(state)) as client,
        gpu_pool(client).acquire(ids=["1"]),
    ):
        lockkit.start("run", "--gpu", "2", "--", "true")
        until(lambda: all(card["state"] == "held" for card in lockkit.json("gpu", "ls")["gpus"]))
        told = lockkit("gpu", "ls").stdout.splitlines()
    assert "kept for a request that waits for 1 more" in told[1]
    assert "kept for a request" not in told[2]
    assert re.fullmatch(r"first in the queue: the request of \S+ pid \d+ \(true\) for 2 GPUs", told[3])
    assert told[4] == "2 GPUs: 2 held; 1 request waits"
