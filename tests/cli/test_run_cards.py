"""``lockkit run --gpu``: on simulated cards that a file steers, with real processes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import struct
import sys
import termios

import pytest

from lockkit.cli.child import descendants
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from support.frameworks import Torch

from .test_gpu import BOB, besides_simulation, steer
from .test_json import check

HOST = os.uname().nodename
CARDS = [card.uuid for card in SimulatedProvider(4).snapshot().devices]
ENVIRONMENT = (
    'echo "$CUDA_VISIBLE_DEVICES|$CUDA_DEVICE_ORDER|$LOCKKIT_GPU_UUIDS|$LOCKKIT_GPU_INDEXES|'
    '${LOCKKIT_GPU_MEM-unset}|$LOCKKIT_POOL_MEMBERS"'
)
SHOWN = ("sh", "-c", ENVIRONMENT)


def queue_of(card):
    return pool_name(f"gpu-sim/{HOST}", card)


@pytest.fixture
def cards(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    lockkit.env.pop("CUDA_VISIBLE_DEVICES", None)
    return lockkit


def held(cards, uuid):
    return lambda: any(claim["state"] == "HELD" for claim in cards.claims(queue_of(uuid)))


def line_of(process, beginning):
    """The first line of stderr that begins so."""
    for line in process.stderr:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"no line begins with {beginning!r}")


def test_two_runs_take_two_cards_and_the_third_gets_the_one_that_is_freed(cards):
    first = cards.start("run", "--gpu", "1", "--", "sleep", "60")
    cards.until(held(cards, CARDS[0]))
    second = cards.start("run", "--gpu", "1", "--", "sleep", "60")
    cards.until(held(cards, CARDS[1]))
    third = cards.start("run", "--gpu", "1", "--", *SHOWN)
    told = line_of(third, "waiting for 1 GPU: you are 1st; ")
    for index, process in enumerate((first, second)):
        assert f"GPU {index}: held by " in told
        assert f"pid {process.pid} (sleep), " in told
    fourth = cards.start("run", "--gpu", "2", "--", "true")
    assert "waiting for 2 GPUs: you are 2nd; " in line_of(fourth, "waiting for ")
    fourth.terminate()
    second.terminate()
    out, _ = third.communicate(timeout=40)
    assert out == f"1|PCI_BUS_ID|{CARDS[1]}|1|unset|{CARDS[1]}\n"
    assert (third.returncode, second.wait(40)) == (0, 143)
    first.terminate()


def test_those_who_wait_see_until_when_a_card_is_held_and_whose_request_comes_first(cards):
    cards.env["LOCKKIT_GPU_SIMULATE"] = "1"
    holder = cards.start("run", "--gpu", "1", "--for", "3h", "--", "sleep", "60")
    cards.until(held(cards, CARDS[0]))
    first = cards.start("run", "--gpu", "1", "--", "true")
    told = line_of(first, "waiting for 1 GPU: you are 1st; ")
    assert re.search(r"GPU 0: held by \S+ pid \d+ \(sleep\), .*until (\d\d [A-Z][a-z]+ )?\d\d:\d\d", told), (
        told
    )
    seen = cards("gpu", "ls").stdout
    assert re.search(r"first in the queue: the request of \S+ pid \d+ \(true\) for 1 GPU\n", seen), seen
    assert re.search(r"until \d\d:\d\d", " ".join(seen.split())), seen
    first.terminate()
    holder.terminate()


def test_the_next_run_of_a_user_gets_the_card_of_the_last_one(cards):
    assert cards("run", "--gpu", "1", "--gpu-id", "1", "--", "true").returncode == 0
    assert cards("run", "--gpu", "1", "--no-affinity", "--", *SHOWN).stdout.split("|")[0] == "0"
    assert cards("run", "--gpu", "1", "--gpu-id", "1", "--", "true").returncode == 0
    assert cards("run", "--gpu", "1", "--", *SHOWN).stdout.split("|")[0] == "1"
    assert "--no-affinity needs --gpu" in cards("run", "--no-affinity", "name", "--", "true").stderr
    assert "--affinity needs --gpu" in cards("run", "--affinity", "name", "--", "true").stderr


def test_the_card_of_a_killed_holder_is_given_to_the_next(cards):
    cards.env["LOCKKIT_GPU_SIMULATE"] = "1"
    holder = cards.start("run", "--gpu", "1", "--", "sleep", "60")
    cards.until(held(cards, CARDS[0]))
    waiter = cards.start("run", "--gpu", "1", "--", *SHOWN)
    line_of(waiter, "waiting for 1 GPU")
    holder.kill()
    out, _ = waiter.communicate(timeout=40)
    assert out.split("|")[0] == "0"


@pytest.mark.parametrize("wanted, behind", [("1", "1"), ("2", "1"), ("2", "2")])
def test_a_waiting_run_that_is_stopped_stops_nobody_and_goes_on_waiting(cards, wanted, behind):
    """Ctrl-Z strikes the run at the gate. If it wants two cards, it already has the one that is free."""
    cards.env["LOCKKIT_GPU_SIMULATE"] = wanted
    holder = cards.start("run", "--gpu", "1", "--", "sleep", "60")
    cards.until(held(cards, CARDS[0]))
    stopped = cards.start("run", "--gpu", wanted, "--timeout", "100s", "--", *SHOWN)
    line_of(stopped, "waiting for")
    stopped.send_signal(signal.SIGSTOP)
    after = cards.start("run", "--gpu", behind, "--timeout", "100s", "--", "sleep", "1")
    line_of(after, f"waiting for {behind} GPU")
    holder.terminate()
    _, err = after.communicate(timeout=100)
    assert after.returncode == 0, err
    stopped.send_signal(signal.SIGCONT)
    out, err = stopped.communicate(timeout=100)
    assert (out.split("|")[0], stopped.returncode) == ("0" if wanted == "1" else "0,1", 0), err
    assert "lost" not in err


def test_a_run_whose_card_is_taken_away_says_so_when_it_happens_and_at_its_end(cards):
    run = cards.start("run", "--gpu", "1", "--gpu-id", "1", "--ttl", "2s", "--", "sleep", "60")
    cards.until(held(cards, CARDS[1]))
    (claim,) = cards.claims(queue_of(CARDS[1]))
    cards("evict", queue_of(CARDS[1]), "--claim", claim["claim_id"], "--reason", "idle since noon")
    _, err = run.communicate(timeout=40)
    assert run.returncode == 76
    told = [line for line in err.splitlines() if "lost" in line or "lapsed" in line]
    assert [line.partition(" (")[0] for line in told[:1]] == ["lockkit: GPU 1 is lost"]
    assert len(told) == 2, err
    assert told[1].startswith("lockkit: GPU 1 was lost while the command ran: evicted by ")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_ends_a_wait_for_cards_names_what_the_waiting_line_does(cards, number):
    cards.env["LOCKKIT_GPU_HOST"] = "hostb"
    steer(cards, _0={"processes": [BOB]}, _1={"processes": [BOB]})
    waiter = cards.start("run", "--gpu", "1", "--private", "--json", "--", "true")
    assert next(row for row in waiter.stderr if "lockkit.waiting/1" in row)
    waiter.send_signal(number)
    error = check(json.loads(waiter.communicate(timeout=40)[1].splitlines()[-1]))
    assert waiter.returncode == 128 + number
    assert error["message"] == f"{signal.Signals(number).name} while waiting for 1 GPU"
    assert error["name"] == "gpu-sim/hostb"


def test_a_card_that_somebody_uses_without_a_lock_is_skipped_and_named(cards):
    steer(cards, _0={"processes": [BOB]})
    run = cards.start("run", "--gpu", "1", "--private", "--", *SHOWN)
    out, err = run.communicate(timeout=40)
    assert (out.split("|")[0], besides_simulation(err)) == ("1", "")
    done = cards("run", "--gpu", "2", "--private", "--timeout", "300ms", "--", "true")
    assert done.returncode == 124
    assert (
        " s waiting for 2 GPUs; GPU 0: busy (unmanaged): bob pid 4711 (jupyter), 12 GiB; GPU 1: "
        in done.stderr
    )
    waiter = cards.start("run", "--gpu", "2", "--private", "--", *SHOWN)
    told = line_of(waiter, "waiting for 2 GPUs: you are 1st; GPU 0: busy (unmanaged): bob pid 4711")
    assert "GPU 1: got already, and kept" in told
    steer(cards, _0={})
    assert waiter.communicate(timeout=40)[0].split("|")[0] in ("0,1", "1,0")
    done = cards("run", "--gpu", "1", "--gpu-id", "0", "--private", "--allow-busy", "--", *SHOWN)
    assert done.stdout.split("|")[0] == "0"


@pytest.mark.parametrize("words, code", [(["--no-wait"], 75), (["--timeout", "300ms"], 124)])
def test_a_run_that_gets_no_card_names_what_gives_one(cards, words, code):
    steer(cards, _0={"processes": [BOB]}, _1={"processes": [BOB]})
    assert cards("gpu", "quarantine", "1", "--reason", "it hums").returncode == 0
    done = cards("run", "--gpu", "1", "--private", *words, "--", "true")
    assert done.returncode == code
    assert "GPU 0: busy (unmanaged): bob pid 4711 (jupyter), 12 GiB; GPU 1: quarantined by " in done.stderr
    back = f"to give GPU 1 back: lockkit gpu clear {CARDS[1]}"
    assert f": it hums (--allow-busy takes GPU 0 although it is in use; {back}; " in done.stderr
    assert done.stderr.count("--allow-busy") == 1  # a wait so short is not told of
    cards.env["LOCKKIT_GPU_SIMULATE"] = "0"
    done = cards("run", "--gpu", "1", "--gpu-sim", "2", "--private", *words, "--", "true")
    assert f"{back} --gpu-sim 2" in done.stderr
    assert "look with: lockkit gpu ls --gpu-sim 2)" in done.stderr


def test_a_terminal_shows_a_wait_in_one_row_and_its_whole_account_at_the_times_of_the_manual(cards, tty):
    steer(cards, _1={"processes": [BOB]})
    holder = cards.start("run", "--gpu", "1", "--private", "--reason", "nightly", "--", "sleep", "60")
    cards.until(held(cards, CARDS[0]))
    waiter = tty(*cards.line("run", "--gpu", "2", "--private", "--", "echo", "ran"), TERM="xterm")
    told = waiter.expect(r"waiting for 2 GPUs: you are 1st; [^\n]*12 GiB\r\n")
    assert f"pid {holder.pid} (sleep), " in told
    row = waiter.expect(
        r"waiting \d+ s for 2 GPUs: you are 1st; GPU 0 held by \w+ since [\d:]{5} \([^\r]*\.\.\.\r"
    )
    assert len(row) == 80  # 79 and the return
    fcntl.ioctl(waiter.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 132, 0, 0))
    waiter.expect(
        r"2 GPUs: you are 1st; GPU 0 held by \w+ since [\d:]{5} \(nightly\), "
        r"GPU 1 busy \(unmanaged\): bob's jupyter\r"
    )
    assert f"pid {holder.pid}" not in waiter.text
    steer(cards)
    holder.terminate()
    waiter.expect("ran")
    assert waiter.wait() == 0


def test_shares_of_a_card_by_memory(cards):
    first = cards.start("run", "--gpu", "1", "--gpu-id", "1", "--gpu-mem", "8GiB", "--", "sleep", "60")
    cards.until(held(cards, CARDS[1]))
    done = cards(
        "run", "--gpu", "1", "--gpu-id", CARDS[1], "--gpu-mem", "8GiB", "--visible", "uuid", "--", *SHOWN
    )
    assert done.stdout == f"{CARDS[1]}|PCI_BUS_ID|{CARDS[1]}|1|8192|{CARDS[1]}\n"
    done = cards("run", "--gpu", "1", "--gpu-id", "1", "--no-wait", "--", "true")
    assert done.returncode == 75
    assert "lockkit: 1 GPU cannot be had now; GPU 1: held by " in done.stderr
    assert "8 GiB declared (without --no-wait this run would wait in the queue, or look with: " in done.stderr
    first.terminate()


@pytest.mark.parametrize(
    "words, code, told",
    [
        (["--gpu", "0"], 64, "--gpu: must be a whole number from 1 to 64, not '0'"),
        (["--gpu", "3"], 78, "3 GPUs can never be had: this host has only 2 (ask for less"),
        (
            ["--gpu", "1", "--gpu-mem", "90GiB"],
            78,
            "will do; all 2: it has only 23.5 GiB for programs (ask for less",
        ),
        (["--gpu", "1", "--min-free", "90GiB"], 78, "it has only 23.5 GiB for programs"),
        (
            ["--gpu", "1", "--gpu-name", "H100"],
            78,
            "all 2: it is a Simulated GPU (the models are: Simulated GPU)",
        ),
        (
            ["--gpu", "2", "--gpu-id", "1"],
            78,
            "only 1 GPU was named (name as many GPUs as are asked for: repeat --gpu-id for each GPU)",
        ),
        (["--gpu", "1", "--gpu-id", "7"], 78, "there is no GPU '7' (the GPUs are 0 to 1)"),
        (
            ["--gpu", "1", "--gpu-id", "0,1"],
            78,
            "there is no GPU '0,1' (name each GPU by itself: repeat --gpu-id",
        ),
        (["--gpu", "1", "--gpu-id", "GPU-none"], 78, "there is no GPU 'GPU-none'"),
        (["--gpu", "1", "--min-free", "a lot"], 64, "--min-free must be a size, not 'a lot'"),
        (
            ["--gpu", "1", "--min-free", "20"],
            64,
            "--min-free must be a size with a unit, not '20' (did you mean 20GiB",
        ),
        (
            ["--gpu", "1", "--gpu-mem", "8"],
            64,
            "--gpu-mem must be a size with a unit, not '8' (did you mean 8GiB",
        ),
        (["--gpu", "1", "backup"], 64, "--gpu takes the place of the names of locks, such as 'backup'"),
        (["--gpu", "1", "--pool", "x"], 64, "--pool and --gpu cannot be used together"),
        (["--gpu", "1", "--shared"], 64, "--shared and --gpu cannot be used together"),
        (["--gpu", "1", "--count", "2"], 64, "--count needs --pool"),
        (["backup", "--gpu-mem", "8GiB"], 64, "--gpu-mem needs --gpu"),
        (["backup", "--gpu-id", "0"], 64, "--gpu-id needs --gpu"),
        (["backup", "--gpu-sim", "0"], 64, "--gpu-sim needs --gpu"),
    ],
)
def test_cards_that_can_never_be_had_are_refused_at_once(cards, words, code, told):
    done = cards("run", *words, "--", "touch", "ran")
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert not (cards.folder / "ran").exists()
    if code == 78:
        document = check(json.loads(cards("run", *words, "--json", "-q", "--", "touch", "ran").stderr))
        assert (document["error"], document["exit_code"]) == ("ConfigError", 78)


def test_a_forgotten_dash_before_the_command_is_seen(cards):
    done = cards("run", "--gpu", "1", "sleep", "3")
    assert done.stderr.endswith("did you mean: lockkit run --gpu 1 -- sleep 3\n")
    assert cards("run", "--gpu", "1", "--").returncode == 64


def test_the_environment_is_never_widened(cards):
    cards.env["CUDA_VISIBLE_DEVICES"] = "1"
    done = cards("run", "--gpu", "1", "--", *SHOWN)
    told = "lockkit: only the GPUs of CUDA_VISIBLE_DEVICES=1 are asked for\n"
    assert (done.stdout.split("|")[0], told in done.stderr) == ("1", True)
    done = cards("run", "--gpu", "2", "--", "true")
    assert (done.returncode, "CUDA_VISIBLE_DEVICES hides it" in done.stderr) == (78, True)
    assert "(unset CUDA_VISIBLE_DEVICES, or see: lockkit gpu ls)" in done.stderr


def test_in_a_job_of_slurm_a_run_says_that_it_takes_only_the_cards_of_the_job(cards):
    cards.env |= {"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_ID": "4711"}
    told = "lockkit: only the GPUs that Slurm has given job 4711 are asked for (CUDA_VISIBLE_DEVICES=1)\n"
    done = cards("run", "--gpu", "1", "--", *SHOWN)
    assert (done.stdout.split("|")[0], told in done.stderr) == ("1", True)
    assert cards("run", "--gpu", "1", "-q", "--", "true").stderr == ""
    done = cards("run", "--gpu", "2", "--", "true")
    assert done.returncode == 78
    assert "CUDA_VISIBLE_DEVICES hides it, which Slurm sets for job 4711" in done.stderr


def test_a_run_for_cards_inside_another_one(cards):
    inner = cards.line("run", "--gpu", "1")
    outer = ("run", "--gpu", "2", "-q", "--")
    done = cards(*outer, *inner, "--", "true")
    assert done.returncode == 75
    assert f"'gpu-sim/{HOST}' is held by the lockkit run or task around this one" in done.stderr
    assert "use --nested reuse" in done.stderr
    done = cards(*outer, *inner, "--nested", "reuse", "--gpu-id", "1", "--", *SHOWN)
    assert (done.stdout, done.stderr) == (f"1|PCI_BUS_ID|{CARDS[1]}|1|unset|{CARDS[1]}\n", "")
    shared = cards.line("run", "--gpu", "2", "--gpu-mem", "8GiB", "--nested", "reuse", "--")
    assert cards(*outer, *shared, *SHOWN).stdout.split("|")[4] == "8192"
    done = cards("run", "--gpu", "1", "-q", "--", *shared, "true")
    assert done.returncode == 75
    assert "holds only 1 GPU that will do, which is not enough for 2 GPUs" in done.stderr
    part = ("run", "--gpu", "1", "--gpu-mem", "8GiB", "-q", "--")
    done = cards(*part, *inner, "--nested", "reuse", "--", "true")
    assert (done.returncode, "the outer hold has only 8 GiB of it" in done.stderr) == (75, True)


def test_a_store_of_one_user_warns_and_refuses_cards_that_others_use(cards):
    done = cards("run", "--gpu", "1", "--", "true")
    assert (done.returncode, besides_simulation(done.stderr).count("\n")) == (0, 1)
    assert (
        "your jobs and other users' jobs do not see each other on these GPUs; "
        "for all users: lockkit docs all-users" in done.stderr
    )
    assert cards("run", "--gpu", "1", "-q", "--", "true").stderr == ""
    steer(cards, _0={"processes": [BOB | {"user": "root"}]})
    assert cards("run", "--gpu", "1", "--", "true").returncode == 0
    steer(cards, _0={"processes": [BOB]})
    done = cards("run", "--gpu", "1", "--", "true")
    assert done.returncode == 78
    assert "somebody else computes here: bob pid 4711 (jupyter), 12 GiB, on GPU 0" in done.stderr
    assert "--private" in done.stderr
    assert besides_simulation(cards("run", "--gpu", "1", "--private", "--", "true").stderr) == ""


def test_a_waiting_document_has_the_reason_of_each_card_and_the_report_its_members(cards):
    holder = cards.start("run", "--gpu", "2", "--", "sleep", "60")
    cards.until(held(cards, CARDS[1]))
    waiter = cards.start("run", "--gpu", "1", "--json", "-E", "9", "--report", "report", "--", "true")
    found = map(json.loads, waiter.stderr)
    document = check(next(one for one in found if one["schema"] == "lockkit.waiting/1"))
    assert (document["position"], [one.split(":")[0] for one in document["reasons"]]) == (
        1,
        ["GPU 0", "GPU 1"],
    )
    holder.send_signal(signal.SIGTERM)
    assert waiter.wait(40) == 0
    report = check(json.loads((cards.folder / "report").read_text()))
    assert (report["name"], [one["member"] in CARDS for one in report["leases"]]) == (
        f"gpu-sim/{HOST}",
        [True],
    )


def test_the_name_of_the_host_is_that_of_the_configuration(cards):
    cards.env["LOCKKIT_GPU_HOST"] = "other-box"
    done = cards("run", "--gpu", "1", "--report", "report", "--", "sh", "-c", 'echo "$LOCKKIT_LEASE_NAME"')
    assert done.stdout == f"{pool_name('gpu-sim/other-box', CARDS[0])}\n"
    assert json.loads((cards.folder / "report").read_text())["name"] == "gpu-sim/other-box"


def test_other_stores_keep_the_cards_of_all_users_apart(cards, place):
    if place == "sqlite":
        pytest.skip("a store of one user")
    run = cards.start("run", "--gpu", "1", "--", "sh", "-c", f"{ENVIRONMENT}; sleep 60")
    assert run.stdout.readline().split("|")[0] == "0"
    claims = cards.claims(queue_of(CARDS[0]))
    assert [round(one["ttl_seconds"]) for one in claims] == [
        {"redis": 300, "etcd": 60, "zookeeper": 60}[place]
    ]
    run.terminate()
    assert "kept apart" not in run.communicate(timeout=40)[1]


def test_of_two_processes_on_any_store_one_has_the_card_and_the_other_waits_for_it(cards, place):
    """As users of a fleet run it: the store is in LOCKKIT_URL, and the name of the host in the names."""
    cards.env |= {"LOCKKIT_GPU_SIMULATE": "1", "LOCKKIT_GPU_HOST": f"box-of-{place}"}
    queue = pool_name(f"gpu-sim/box-of-{place}", CARDS[0])
    first = cards.start("run", "--gpu", "1", "-q", "--", "sleep", "60")
    cards.until(lambda: [one["state"] for one in cards.claims(queue)] == ["HELD"])
    refused = cards("run", "--gpu", "1", "--no-wait", "--", "touch", "ran")
    assert (refused.returncode, f"pid {first.pid} (sleep)" in refused.stderr) == (75, True), refused.stderr
    second = cards.start("run", "--gpu", "1", "--", "sh", "-c", f"{ENVIRONMENT}; touch ran")
    assert f"pid {first.pid} (sleep), " in line_of(second, "waiting for 1 GPU: you are 1st; GPU 0: held by ")
    assert not (cards.folder / "ran").exists()

    first.terminate()

    out, _ = second.communicate(timeout=40)
    assert (first.wait(40), second.returncode, out.split("|")[2]) == (143, 0, CARDS[0])
    cards.until(lambda: cards.claims(queue) == [])


def test_a_card_that_fails_its_preflight_is_quarantined_and_the_command_gets_another_one(cards):
    torch = Torch(cards.folder / "torch.json")
    cards.env |= torch.environ()
    torch.steer({CARDS[0]: "wrong"})
    done = cards("run", "--gpu", "1", "-q", "--preflight", "--", *SHOWN)
    assert (done.returncode, done.stdout.split("|")[2]) == (0, CARDS[1]), done.stderr
    card, _ = cards.json("gpu", "ls")["gpus"]
    assert (card["state"], card["quarantine"]["reason"]) == (
        "quarantined",
        "preflight: it computes wrong results",
    )
    torch.steer({"*": "no memory"})
    done = cards("run", "--gpu", "1", "-q", "--preflight", "--no-wait", "--", "touch", "ran")
    assert (done.returncode, (cards.folder / "ran").exists()) == (75, False)
    assert "GPU 1: its preflight failed: OutOfMemoryError: CUDA out of memory. " in done.stderr
    torch.steer({"import": "fails"})
    done = cards("run", "--gpu", "1", "-q", "--preflight", "--", "touch", "ran")
    assert (done.returncode, "pip install torch" in done.stderr) == (78, True)
    assert not (cards.folder / "ran").exists()
    assert cards("run", "backup", "--preflight", "--", "true").returncode == 64


def test_the_preflight_computes_with_the_python_that_is_named(cards):
    """lockkit's own Python has no torch, another one has: a script shows it to the real interpreter."""
    torch = Torch(cards.folder / "torch.json")
    torch.steer({CARDS[0]: "wrong"})
    python = cards.folder / "venv-python"
    exports = [f"export {key}={shlex.quote(value)}" for key, value in torch.environ().items()]
    python.write_text("\n".join(["#!/bin/sh", *exports, f'exec {sys.executable} "$@"\n']))
    python.chmod(0o755)
    done = cards("run", "--gpu", "1", "-q", "--preflight-python", python, "--", *SHOWN)
    assert (done.returncode, done.stdout.split("|")[2]) == (0, CARDS[1]), done.stderr
    assert torch.computed() == CARDS[:2]
    done = cards("run", "--gpu", "1", "--preflight-python", cards.folder / "none", "--", "touch", "ran")
    assert (done.returncode, "--preflight-python" in done.stderr) == (78, True), done.stderr
    assert not (cards.folder / "ran").exists()


def test_ctrl_c_during_a_preflight_finds_no_card_faulty(cards, alive):
    torch = Torch(cards.folder / "torch.json")
    cards.env |= torch.environ()
    torch.steer({"*": "hangs"})
    run = cards.start("run", "--gpu", "1", "-q", "--preflight", "--", "true")
    cards.until(torch.computed)
    (child,) = descendants(run.pid)
    run.send_signal(signal.SIGINT)
    assert run.wait(40) == 130
    cards.until(lambda: not alive(child))
    assert [card["state"] for card in cards.json("gpu", "ls")["gpus"]] == ["free", "free"]
    assert cards.claims(queue_of(CARDS[0])) == []


DRIVER = """
import os
import re
from pathlib import Path
from lockkit.gpu.devices import Device, NoWatch, Snapshot
from lockkit.hooks import hookimpl

SAID = Path(__file__).with_name("said")

class Driver:
    name = "driver"
    def snapshot(self):
        return Snapshot(0.0, (Device("CARD-1", 0, "Card", 8 << 30, 0, 0, 0, ()),))
    def watch(self, uuids):
        SAID.open("a").write("watched ")
        return NoWatch()
    def close(self):
        SAID.open("a").write("closed ")

@hookimpl
def lockkit_devices():
    return [Driver()]
"""


@pytest.mark.parametrize("watch, said", [("true", "watched"), ("false", "closed")])
def test_the_driver_stays_open_while_a_command_runs_unless_nothing_is_watched(lockkit, watch, said):
    lockkit.install("driver", DRIVER)
    lockkit.env |= {"LOCKKIT_GPU_WATCH": watch, "LOCKKIT_DISABLE_PLUGINS": "gpu"}
    done = lockkit(
        "run", "--gpu", "1", "--", "sh", "-c", "until test -s site/said; do sleep 0.05; done; cat site/said"
    )
    assert (done.returncode, done.stdout.split()) == (0, [said]), done.stderr
