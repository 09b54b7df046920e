"""Adopting a job: the cards that go with it, and the requests that are refused."""

from __future__ import annotations

import json
import os

import pytest

from lockkit import connect
from lockkit.errors import BackendUnavailable, CapacityMismatch, ConfigError
from lockkit.gpu import adopting
from lockkit.gpu.adopting import Adopted, NotAdopted, adopt, cards_to_adopt, let_go
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.handover import Handover
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.judging import Receipt
from lockkit.gpu.quarantine import quarantine
from lockkit.gpu.receipts import last, put
from lockkit.gpu.requests import HostCards
from lockkit.gpu.running import RunningJob
from lockkit.gpu.simulated import STATE_FILE, SimulatedProvider
from lockkit.gpu.usage import ADOPTED
from lockkit.notes.members import pool_name
from lockkit.values.identity import this_process
from lockkit.values.sizes import GIB, MIB
from support.sleeper import sleeping

HOST = os.uname().nodename
SIMULATED = simulated(HOST)
CARDS = [one.uuid for one in SimulatedProvider(3).snapshot().devices]


class Job:
    pid, user, program, started = 4711, "ann", "train.py", 5.0

    def ended(self):
        return False

    def __str__(self):
        return "ann pid 4711 (train.py)"


MINE, BOB, SOME = (
    DeviceProcess(4711, "ann", "train.py", GIB),
    DeviceProcess(4712, "bob", "jupyter"),
    DeviceProcess(),
)


def cards(*processes):
    return Snapshot(
        0.0,
        tuple(Device(f"GPU-{n}", n, "H100", 80 * GIB, 0, 0, 0, each) for n, each in enumerate(processes)),
    )


def chosen(snapshot, named=None, family=()):
    return [one.uuid for one in cards_to_adopt(Job(), snapshot, named, family)]


def test_all_cards_on_which_the_job_computes_are_taken():
    assert chosen(cards((MINE,), (), (BOB, MINE), None)) == ["GPU-0", "GPU-2"]


def test_a_named_card_will_do_unless_the_driver_says_that_the_job_is_not_on_it():
    assert chosen(cards((MINE,), (MINE,)), ["GPU-1", "GPU-1"]) == ["GPU-1"]
    assert chosen(cards((SOME,)), ["GPU-0"]) == ["GPU-0"]
    assert chosen(cards(None), ["GPU-0"]) == ["GPU-0"]
    with pytest.raises(ConfigError, match=r"does not compute on GPU 1 \(it computes on GPU 0\)"):
        chosen(cards((MINE,), (BOB,)), ["GPU-1"])


@pytest.mark.parametrize(
    "snapshot, family, told",
    [
        (cards((BOB,), ()), (), "computes on no GPU .*the pids on the GPUs: lockkit gpu ls"),
        (cards((BOB,), ()), (4712,), r"what it started does: bob pid 4712 \(jupyter\) .*gpu adopt 4712"),
        (cards((BOB,), (SOME,)), (), "cannot be told.*--gpu UUID"),
        (cards(None), (), "cannot be told.*--gpu UUID"),
    ],
)
def test_a_job_that_is_seen_on_no_card_is_refused_with_what_to_do(snapshot, family, told):
    with pytest.raises(ConfigError, match=told):
        chosen(snapshot, family=family)


def test_of_a_divided_card_the_slice_is_taken():
    whole = Device("GPU-0", 0, "H100", 80 * GIB, 0, 0, None, (MINE,), sliced=True)
    part = Device("MIG-a", 0, "1g", 10 * GIB, 0, 0, None, (MINE,), parent="GPU-0")
    snapshot = Snapshot(0.0, (whole, part))
    assert chosen(snapshot) == ["MIG-a"]
    with pytest.raises(ConfigError, match=r"GPU 0 is divided into slices.*name the slice: MIG-a"):
        chosen(snapshot, ["GPU-0"])


# -- with a store and a real process


@pytest.fixture
def job():
    with sleeping() as process, RunningJob(process.pid) as job:
        job.process = process
        yield job


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LOCKKIT_GPU_SIMULATE", "3")
    with connect("memory:") as client:
        client.folder = tmp_path
        yield client


def steer(client, **state):
    client.folder.chmod(0o700)
    (client.folder / STATE_FILE).write_text(json.dumps({key[1:]: card for key, card in state.items()}))


def on(job, memory="3GiB"):
    return {"pid": job.pid, "user": job.user, "program": job.program, "memory": memory, "while_alive": True}


def got(adopted):
    """Check that the cards are held, and release them."""
    assert isinstance(adopted, Adopted)
    adopted.leases.release()


def holders(client, card):
    return client.inspect(pool_name(f"gpu-sim/{HOST}", card)).holders


def test_the_claim_is_that_of_the_keeper_and_shows_the_job(client, job):
    steer(client, _0={"processes": [on(job)]}, _2={"processes": [on(job)]})
    adopted = adopt(client, job, options={"ttl": 60.0, "reason": "it must end today"})
    assert [one.uuid for one in adopted.devices] == [CARDS[0], CARDS[2]]
    for card in (CARDS[0], CARDS[2]):
        (claim,) = holders(client, card)
        assert (claim.owner.pid, claim.reason) == (os.getpid(), "it must end today")
        assert claim.owner.program == f"keeper of sleep pid {job.pid}"
        assert claim.note[ADOPTED] == {
            "pid": job.pid, "user": job.user, "program": "sleep", "started": job.started,
        }  # fmt: skip
        assert claim.weight == claim.capacity
        assert not claim.process_bound
    assert holders(client, CARDS[1]) == ()
    adopted.leases.release()
    assert holders(client, CARDS[0]) == ()


def test_all_or_none_and_the_holder_is_named(client, job):
    steer(client, _0={"processes": [on(job)]}, _1={"processes": [on(job)]})
    with client.pool(f"gpu-sim/{HOST}", dict.fromkeys(CARDS, 24064)).acquire(each=24064, among=[CARDS[1]]):
        busy = adopt(client, job, options={})
        assert isinstance(busy, NotAdopted)
        assert busy.sentences[0].startswith(f"GPU 1: held by {client.owner}")
        assert busy.holder.owner.pid == os.getpid()
        assert holders(client, CARDS[0]) == ()
    got(adopt(client, job, options={}))


def test_a_request_at_the_gate_is_not_in_the_way(client, job):
    steer(client, _0={"processes": [on(job)]})
    gate = pool_name(f"gpu-sim/{HOST}")
    with (
        client.pool(f"gpu-sim/{HOST}", dict.fromkeys(CARDS, 24064))
        ._made_of(gate, "mutex", 1, 1, {})
        .acquire()
    ):
        got(adopt(client, job, options={}))


def test_a_share_leaves_the_rest_and_must_hold_what_is_used_already(client, job):
    steer(client, _0={"processes": [on(job), {"pid": 1, "program": "other", "memory": "1GiB"}]})
    busy = adopt(client, job, options={})
    assert busy.sentences == ("GPU 0: others compute on it, too: pid 1 (other), 1 GiB",)
    with pytest.raises(ConfigError, match=r"uses 3 GiB of GPU 0 already.*--gpu-mem 3072MiB"):
        adopt(client, job, options={}, memory=2 * GIB)
    with pytest.raises(ConfigError, match=r"GPU 0 has only 23\.5 GiB for programs"):
        adopt(client, job, options={}, memory=24 * GIB)
    adopted = adopt(client, job, options={}, memory=8 * GIB + 1)
    (claim,) = holders(client, CARDS[0])
    assert (claim.weight, claim.capacity) == (8 * 1024 + 1, 24064)
    adopted.leases.release()
    got(adopt(client, job, options={}, allow_busy=True))


def told(client, *live):
    """How the last holder of the first card left it, while these claims hold it."""
    return last(client, SIMULATED, CARDS[0], live)


@pytest.mark.parametrize("memory", [None, 8 * GIB])
def test_after_a_keeper_that_was_killed_no_older_receipt_speaks_for_its_job(client, job, memory):
    put(client, SIMULATED, Receipt(CARDS[0], "clean", claim_id="an-older-one"))
    steer(client, _0={"processes": [on(job)]})
    adopted = adopt(client, job, options={}, memory=memory)
    (claim,) = holders(client, CARDS[0])
    assert told(client, claim.claim_id).claim_id == "an-older-one"
    assert (told(client).outcome, told(client).claim_id) == ("unknown", claim.claim_id)  # as if it was killed
    got(adopted)


@pytest.mark.parametrize(
    "memory, ends, outcome", [(None, True, "clean"), (None, False, "unknown"), (8 * GIB, True, "unknown")]
)
def test_a_card_of_a_job_is_left_in_an_unknown_state_where_it_cannot_be_judged(
    client, job, memory, ends, outcome
):
    put(client, SIMULATED, Receipt(CARDS[0], "clean", claim_id="an-older-one"))
    steer(client, _0={"processes": [on(job)]})
    adopted = adopt(client, job, options={}, memory=memory)
    (claim,) = holders(client, CARDS[0])
    if ends:
        job.process.kill()
        job.process.wait()
    let_go(adopted, job, "normal")
    assert (told(client).outcome, told(client).claim_id) == (outcome, claim.claim_id)


def test_a_store_that_cannot_note_the_adoption_leaves_nothing_held(client, job, monkeypatch):
    def fail(self, uuid, holders):
        raise BackendUnavailable("no answer")

    steer(client, _0={"processes": [on(job)]})
    monkeypatch.setattr(Handover, "take", fail)
    with pytest.raises(BackendUnavailable):
        adopt(client, job, options={})
    assert holders(client, CARDS[0]) == ()


def test_a_whole_card_that_was_resized_during_the_adoption_is_not_held(client, job, monkeypatch):
    steer(client, _0={"processes": [on(job)]})
    adopt(client, job, options={}).leases.release()
    # As it was before.
    monkeypatch.setattr("lockkit.gpu.adopting.capacities", lambda *_: dict.fromkeys(CARDS, 10_000))
    with pytest.raises(CapacityMismatch, match="was resized to 24064 MiB while all of it was asked for"):
        adopt(client, job, options={})
    assert holders(client, CARDS[0]) == ()
    adopt(client, job, options={}, memory=8 * GIB).leases.release()


def test_a_request_is_noted_also_if_a_keeper_has_got_a_newer_claim_meanwhile(client, job):
    with (
        connect("memory:") as other,
        client.pool(f"gpu-sim/{HOST}", dict.fromkeys(CARDS, 24064)).acquire(each=1024, among=[CARDS[0]]),
    ):
        (mine,) = holders(client, CARDS[0])
        newer = mine._replace(claim_id="k" * 12, fence=mine.fence + 1, owner=mine.owner._replace(pid=1))
        Handover(other, SIMULATED, whole=True).take(CARDS[0], [mine, newer])
        assert told(other, newer.claim_id).claim_id == mine.claim_id


def test_what_the_job_started_is_no_stranger(client, job):
    steer(client, _0={"processes": [on(job), {"pid": 1}]})
    got(adopt(client, job, options={}, family=[1]))


def test_a_quarantined_card_is_not_adopted(client, job):
    steer(client, _0={"processes": [on(job)]})
    quarantine(client, SIMULATED, CARDS[0], "it hums", this_process())
    busy = adopt(client, job, options={})
    assert "GPU 0: quarantined by " in busy.sentences[0]
    assert busy.sentences[0].endswith(": it hums")


def test_a_job_that_ends_meanwhile_leaves_nothing(client, job, monkeypatch):
    steer(client, _0={"processes": [on(job)]})
    tried = adopting._PoolWithoutGate.try_these

    def ends(self, taken):
        leases = tried(self, taken)
        job.process.kill()
        job.process.wait()
        return leases

    monkeypatch.setattr(adopting._PoolWithoutGate, "try_these", ends)
    with pytest.raises(ConfigError, match=r"has ended meanwhile \(nothing is held\)"):
        adopt(client, job, options={})
    assert holders(client, CARDS[0]) == ()


def test_two_slices_of_a_card_weigh_together_in_its_queue(client, job, monkeypatch):
    def part(uuid):
        process = DeviceProcess(job.pid, job.user, job.program, GIB)
        return Device(uuid, 0, "1g", 10 * GIB, 0, GIB, None, (process,), parent="GPU-0")

    whole = Device("GPU-0", 0, "H100", 80 * GIB, 0, 0, None, None, sliced=True)
    monkeypatch.setattr(HostCards, "look", lambda _: Snapshot(0.0, (whole, part("MIG-a"), part("MIG-b"))))
    adopted = adopt(client, job, options={})
    assert [one.uuid for one in adopted.devices] == ["MIG-a", "MIG-b"]
    assert [claim.weight for claim in holders(client, "GPU-0")] == [20 * GIB // MIB]
    got(adopted)
