"""``lockkit gpu reserve``: a keeper holds cards for work by hand; real processes, on every store."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from lockkit.values.identity import user_name
from support.sleeper import sleeping

from .test_gpu import steer
from .test_gpu_adopt import free, on
from .test_json import check
from .test_run_cards import CARDS, cards, held, line_of, queue_of  # noqa: F401 (a fixture)

EXPORTS = f"""\
export CUDA_DEVICE_ORDER=PCI_BUS_ID
export CUDA_VISIBLE_DEVICES=0
export LOCKKIT_GPU_UUIDS={CARDS[0]}
export LOCKKIT_GPU_INDEXES=0
"""


def reserved(keeper):
    """The lines that a keeper printed for a shell, up to the last of them."""
    return "".join(keeper.stdout.readline() for _ in EXPORTS.splitlines())


def test_a_card_is_held_until_its_keeper_is_ended(cards, place):  # noqa: F811
    keeper = cards.start("gpu", "reserve", "--for", "1h", "--private", "--reason", "a notebook")
    assert sorted(reserved(keeper).splitlines()) == sorted(EXPORTS.splitlines())
    told = line_of(keeper, "lockkit: GPU 0 is reserved until ")
    until = r"until (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"
    assert re.search(rf"{until}; to end it before: kill {keeper.pid}\n$", told), told
    (card, _) = check(cards.json("gpu", "ls"))["gpus"]
    assert (card["state"], card["holders"][0]["reason"]) == ("held", "a notebook")
    assert (card["holders"][0]["owner"]["program"], card["holders"][0]["note"]["max_hold"]) == (
        "reservation",
        3600.0,
    )
    keeper.send_signal(signal.SIGINT)
    out, _ = keeper.communicate(timeout=40)
    assert (keeper.returncode, out) == (130, "the reservation was ended; GPU 0 is released\n")
    assert free(cards, CARDS[0])()
    assert cards.json("gpu", "ls")["gpus"][0]["receipt"]["outcome"] == "clean"


def test_what_its_user_computes_there_counts_as_under_the_reservation(cards):  # noqa: F811
    keeper = cards.start("gpu", "reserve", "--for", "1h", "--private")
    reserved(keeper)
    with sleeping() as job:
        steer(cards, _0={"processes": [on(job)]})
        assert "(no lock)" not in cards("gpu", "ls").stdout
        steer(cards, _0={"processes": [{**on(job), "user": "bob"}]})
        assert "bob (no lock)" in " ".join(cards("gpu", "ls").stdout.split())
        steer(cards, _0={"processes": [on(job)]})
        keeper.send_signal(signal.SIGTERM)
        out, _ = keeper.communicate(timeout=60)
        assert (keeper.returncode, out) == (143, "the reservation was ended; GPU 0 is released\n")
        assert job.poll() is None, "no program is ended with a reservation"
        assert cards.json("gpu", "ls")["gpus"][0]["state"] == "busy"


def test_a_shell_uses_what_a_detached_keeper_holds(cards):  # noqa: F811
    done = cards("gpu", "reserve", "2", "--for", "1h", "--private", "--detach")
    assert done.returncode == 0
    shown = subprocess.run(
        ["sh", "-c", f'{done.stdout}\necho "$CUDA_VISIBLE_DEVICES"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "0,1\n"
    keeper = re.search(r"kill (\d+)", done.stderr)[1]
    assert held(cards, CARDS[1])()
    late = cards("gpu", "reserve", "--for", "1h", "--private", "--no-wait")
    assert late.returncode == 75
    assert f"held by {user_name()}@" in late.stderr
    assert re.search(r"until (\d\d [A-Z][a-z]+ )?\d\d:\d\d", late.stderr), late.stderr
    subprocess.run(["kill", keeper], check=True)
    cards.until(free(cards, CARDS[0]))
    cards.until(free(cards, CARDS[1]))


def test_it_waits_in_the_queue_of_all_requests(cards):  # noqa: F811
    cards.env["LOCKKIT_GPU_SIMULATE"] = "1"
    first = cards.start("gpu", "reserve", "--for", "1h", "--private")
    reserved(first)
    second = cards.start("gpu", "reserve", "--for", "1h", "--private")
    assert f"pid {first.pid} (reservation)" in line_of(second, "waiting for 1 GPU: you are 1st; ")
    first.send_signal(signal.SIGINT)
    assert first.wait(40) == 130
    assert sorted(reserved(second).splitlines()) == sorted(EXPORTS.splitlines())
    second.terminate()


def test_the_time_ends_it(cards):  # noqa: F811
    keeper = cards.start("gpu", "reserve", "--for", "1s", "--private")
    out, _ = keeper.communicate(timeout=40)
    assert (keeper.returncode, out.splitlines()[-1]) == (0, "the time is over; GPU 0 is released")
    assert free(cards, CARDS[0])()
    assert cards.json("gpu", "ls")["gpus"][0]["receipt"]["outcome"] == "clean"


STEPPED = """
import sys
from lockkit.gpu.cli.cards import Cards
from lockkit.cli.main import main
from lockkit.lib.clock import SYSTEM, SystemClock

acquire, wall = Cards.acquire, SYSTEM.wall

def acquired_before_a_step(*args):
    taken = acquire(*args)
    SystemClock.wall = staticmethod(lambda: wall() + 3600.0)
    return taken

Cards.acquire = acquired_before_a_step
main()
"""


def test_no_step_of_the_wall_clock_ends_it(cards):  # noqa: F811
    began = time.monotonic()
    done = cards.run([sys.executable, "-c", STEPPED, "gpu", "reserve", "--for", "2s", "--private"])
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "the time is over; GPU 0 is released"), (
        done.stderr
    )
    assert time.monotonic() - began >= 2.0


def test_programs_read_documents(cards):  # noqa: F811
    keeper = cards.start("gpu", "reserve", "--for", "2s", "--private", "--json")
    out, _ = keeper.communicate(timeout=40)
    first, last = (check(json.loads(line)) for line in out.splitlines())
    assert (first["event"], last["event"], first["keeper"]) == ("held", "ended", keeper.pid)
    assert first["variables"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert last["leases"][0]["release"]["outcome"] == "RELEASED"


def test_an_eviction_ends_it(cards):  # noqa: F811
    keeper = cards.start("gpu", "reserve", "--for", "1h", "--private")
    reserved(keeper)
    (claim,) = cards.claims(queue_of(CARDS[0]))
    evicted = cards("evict", queue_of(CARDS[0]), "--claim", claim["claim_id"], "--reason", "needed", "--now")
    assert evicted.returncode == 0, evicted.stderr
    _, told = keeper.communicate(timeout=60)
    assert keeper.returncode == 76
    assert "GPU 0 is no longer held, because the lock was lost: " in told


@pytest.mark.parametrize("wrong", [("--for", "0"), (), ("0", "--for", "1h")])
def test_it_needs_a_number_of_cards_and_a_time(cards, wrong):  # noqa: F811
    assert cards("gpu", "reserve", *wrong).returncode == 64
