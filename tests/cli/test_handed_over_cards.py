"""Cards after ``lockkit run --gpu``: the wrapper's cleanup, and the receipt of the next command."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest

from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.testing.processes import until
from lockkit.values.identity import look_at, user_name

from .test_gpu import besides_simulation, steer

CARD = SimulatedProvider(1).snapshot().devices[0].uuid
TELL = ("sh", "-c", 'echo "$LOCKKIT_GPU_RECEIPT"')
# The command starts a process that ignores TERM, shows it on the card, counts USR1, and ends on order.
LEAVES = """
import json, pathlib, signal, subprocess, sys, time
state, go, pid, count = map(pathlib.Path, sys.argv[1:5])
got = []
signal.signal(signal.SIGUSR1, lambda *_: (got.append(1), count.write_text(str(len(got)))))
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
left = subprocess.Popen(
    [sys.executable, "-c", code], start_new_session=sys.argv[5] == "session",
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
process = {"pid": left.pid, "user": "bob", "program": "train.py", "memory": "3GiB", "while_alive": True}
state.write_text(json.dumps({"0": {"processes": [process]}}))
pid.write_text(str(left.pid))
while not go.exists():
    time.sleep(0.02)
"""


@pytest.fixture
def cards(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "1"
    lockkit.env.pop("CUDA_VISIBLE_DEVICES", None)
    return lockkit


def next_receipt(cards, *more):
    """The receipt of the card that the next command gets."""
    done = cards("run", "--gpu", "1", "--private", *more, "--", *TELL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout).get(CARD)


def test_the_next_command_is_told_how_the_last_one_left_the_card(cards):
    assert next_receipt(cards) is None
    told = next_receipt(cards)
    assert (told["outcome"], told["leftover_bytes"], told["errors"]) == ("clean", 0, [])
    [gpu] = cards.json("gpu", "ls")["gpus"]
    assert gpu["receipt"]["outcome"] == "clean"
    assert gpu["receipt"]["fence"] > told["fence"]


def test_after_a_killed_run_the_next_one_is_told_that_nothing_is_known(cards):
    assert next_receipt(cards) is None
    holder = cards.start("run", "--gpu", "1", "--", "sleep", "60")
    cards.until(
        lambda: any(
            one["state"] == "HELD" for one in cards.claims(pool_name(f"gpu-sim/{os.uname().nodename}", CARD))
        )
    )
    [gpu] = cards.json("gpu", "ls")["gpus"]
    [claim] = gpu["holders"]
    holder.kill()
    holder.wait()
    told = next_receipt(cards)
    assert (told["outcome"], told["claim_id"]) == ("unknown", claim["claim_id"])
    assert next_receipt(cards)["outcome"] == "clean"


@pytest.mark.parametrize("where", ["group", "session"])
def test_a_process_that_the_command_left_on_the_card_is_ended_before_the_next_one(cards, tmp_path, where):
    go, pid, count = tmp_path / "go", tmp_path / "pid", tmp_path / "count"
    steer(cards)
    state = cards.folder / "state/simulated-gpus.json"
    code = (sys.executable, "-c", LEAVES, state, go, pid, count, where)
    run = cards.start("run", "--gpu", "1", "--private", "--", *code)
    until(lambda: pid.exists() and pid.read_text())
    # The wrapper must have looked at the command's processes: when it is woken, at most once a second.
    if where == "session":
        time.sleep(1.1)
        for number in ("1", "2"):  # when it passes on the second signal, it has looked after the first
            run.send_signal(signal.SIGUSR1)
            until(lambda number=number: count.exists() and count.read_text() == number)
    go.touch()
    _, err = run.communicate(timeout=40)
    assert (run.returncode, besides_simulation(err)) == (0, "")
    gone = look_at(int(pid.read_text()))
    assert gone is None or gone.ended
    assert next_receipt(cards)["outcome"] == "clean"


def test_leftover_memory_is_told_and_another_run_takes_the_card_only_if_it_accepts_that(cards, tmp_path):
    (cards.folder / "config.toml").write_text('cleanup_budget = "1s"\n')
    cards.env["LOCKKIT_CONFIG"] = str(cards.folder / "config.toml")
    steer(cards)
    script = (
        f"import pathlib; pathlib.Path({str(cards.folder / 'state/simulated-gpus.json')!r})"
        '.write_text(\'{"0": {"used": "5GiB"}}\')'
    )
    done = cards("run", "--gpu", "1", "--private", "--", sys.executable, "-c", script)
    assert done.returncode == 0
    assert "5 GiB in use" in done.stderr
    assert "dirty" in cards("gpu", "ls").stdout
    refused = cards("run", "--gpu", "1", "--private", "--no-wait", "--", "true")
    assert refused.returncode == 75
    assert "GPU 0: dirty: left dirty by" in refused.stderr
    told = next_receipt(cards, "--accept-dirty")
    assert (told["outcome"], told["leftover_bytes"]) == ("dirty", 5 << 30)


def test_a_waiting_run_with_settle_takes_the_card_at_once_and_starts_its_command_when_the_memory_has_drained(
    cards,
):
    """Without ``--settle`` the card would be left to whoever comes when it is empty."""
    queue = pool_name(f"gpu-sim/{os.uname().nodename}", CARD)

    def holds(run):
        return lambda: any(
            (one["owner"]["pid"], one["state"]) == (run.pid, "HELD") for one in cards.claims(queue)
        )

    holder = cards.start("run", "--gpu", "1", "--private", "--", "sleep", "60")
    cards.until(holds(holder))
    patient = cards.start("run", "--gpu", "1", "--private", "--settle", "1h", "--", *TELL)
    cards.until(lambda: len(cards.claims(queue)) == 2)
    steer(cards, _0={"used": "5GiB"})
    holder.kill()
    cards.until(holds(patient))
    refused = cards("run", "--gpu", "1", "--private", "--no-wait", "--", "true")
    assert (refused.returncode, f"held by {user_name()}@" in refused.stderr) == (75, True), refused.stderr
    assert patient.poll() is None
    steer(cards)
    out, err = patient.communicate(timeout=40)
    assert (patient.returncode, json.loads(out)[CARD]["outcome"]) == (0, "unknown"), err


def test_a_run_inside_another_one_is_told_nothing_of_the_last_holder(cards):
    inner = cards.line("run", "--gpu", "1", "--nested", "reuse", "--", *TELL)
    done = cards("run", "--gpu", "1", "--private", "--", *inner)
    assert done.stdout == "\n"
