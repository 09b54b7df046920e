"""The cards of a host as a pool, on simulated cards that a file steers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

import lockkit
import lockkit.gpu
from lockkit.errors import (
    AcquireTimeout,
    BackendUnavailable,
    ConfigError,
    DevicesUnavailable,
    NotHeld,
    PermissionDenied,
)
from lockkit.facts import Owner
from lockkit.gpu.capacities import capacities
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.quarantine import give_back, quarantine
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.store.spi import Refused
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from lockkit.values.sizes import GIB, MIB

HOST = os.uname().nodename
CARDS = [card.uuid for card in SimulatedProvider(4).snapshot().devices]
BOB = {"pid": 4711, "user": "bob", "program": "jupyter", "memory": "12GiB"}


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with lockkit.connect(f"memory://{os.urandom(8).hex()}") as client:
        yield client


def pool(client, simulate=2, **how):
    return lockkit.gpu.pool(client, simulate=simulate, **how)


def nothing_left(client):
    return not [name for name in client.names() if client.inspect(name).claims]


def test_a_program_is_told_of_a_simulation_that_it_did_not_ask_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LOCKKIT_GPU_SIMULATE", "2")
    with lockkit.connect("memory:") as client:
        pool(client).acquire(timeout=30).release()
        with lockkit.connect("memory:", gpu_simulate=2) as meant:
            lockkit.gpu.pool(meant).acquire(timeout=30).release()
        assert caplog.messages == []
        cards = lockkit.gpu.pool(client)
        for _ in range(2):
            cards.acquire(timeout=30).release()
    assert caplog.messages == ["2 GPUs simulated (LOCKKIT_GPU_SIMULATE): no real GPU is held"]


def test_a_card_is_held_by_its_uuid_and_shown_to_child_processes_only(client):
    with pool(client).acquire(min_free="20GiB", timeout=30) as leases:
        assert leases.members == (CARDS[0],)
        assert [device.uuid for device in leases.devices] == [CARDS[0]]
        assert client.inspect(pool_name(f"gpu-sim/{HOST}", CARDS[0])).holders
        with leases.visible():
            shown = subprocess.check_output(
                [
                    sys.executable,
                    "-c",
                    "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'])",
                ]
            )
        assert shown.split() == [b"0", b"PCI_BUS_ID"]
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
        with leases.visible("uuid"):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == CARDS[0]
    assert nothing_left(client)


def test_in_a_job_of_slurm_only_its_cards_are_asked_for_and_a_pool_logs_that_once(
    client, monkeypatch, caplog
):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_JOB_GPUS", "2")
    caplog.set_level("INFO", "lockkit")
    cards = pool(client, 4)
    for _ in range(2):
        with cards.acquire(timeout=30) as leases:
            assert leases.members == (CARDS[2],)
    told = [one.getMessage() for one in caplog.records if "Slurm" in one.getMessage()]
    assert told == ["only the GPUs that Slurm has given job 77 are asked for (SLURM_JOB_GPUS=2)"]
    with pytest.raises(ConfigError, match="SLURM_JOB_GPUS=2 does not have it, which Slurm sets for job 77"):
        cards.acquire(2, timeout=30)


def test_the_card_that_one_had_last_comes_first(client):
    cards = pool(client, 3)
    with cards.acquire(timeout=30):
        second = cards.acquire(timeout=30)
    second.release()
    with cards.acquire(timeout=30) as again:
        assert again.members == second.members == (CARDS[1],)
    with cards.acquire(affinity=False, timeout=30) as first:
        assert first.members == (CARDS[0],)


def test_a_card_that_somebody_uses_without_a_lock_is_skipped(client, say):
    say(card0={"processes": [BOB]})
    with pool(client).acquire(timeout=30) as leases:
        assert leases.members == (CARDS[1],)
        with pytest.raises(AcquireTimeout, match=r"busy \(unmanaged\): bob pid 4711 \(jupyter\), 12 GiB"):
            pool(client).acquire(timeout=0)
        with pool(client).acquire(allow_busy=True, min_free="10GiB", timeout=30) as more:
            assert more.members == (CARDS[0],)


@pytest.mark.parametrize(
    "happens",
    [
        {"processes": [BOB]},
        {"faults": ["the card must be reset"]},
        {"used": "20GiB"},
        "quarantined",
    ],
    ids=["a stranger computes", "a fault", "memory without a process", "quarantined"],
)
def test_a_card_that_is_kept_for_a_request_is_looked_at_again_before_all_are_handed_over(
    client, say, happens
):
    held = pool(client, 3).acquire(2, ids=[CARDS[1], CARDS[2]], timeout=30)
    work = Work(lambda: pool(client, 3).acquire(2, timeout=60))
    until(lambda: client.inspect(pool_name(f"gpu-sim/{HOST}", CARDS[0])).holders)
    until(lambda: client.inspect(pool_name(f"gpu-sim/{HOST}", CARDS[1])).waiters)
    if happens == "quarantined":
        quarantine(client, simulated(HOST), CARDS[0], "it burns", Owner())
    else:
        say(card0=happens)
    first, second = held
    first.release()
    until(lambda: not client.inspect(pool_name(f"gpu-sim/{HOST}", CARDS[0])).claims)
    assert not work.done
    second.release()
    with work.result() as leases:
        assert set(leases.members) == {CARDS[1], CARDS[2]}


@pytest.mark.parametrize(
    "request_", [{"count": 2}, {"ids": [CARDS[0]]}], ids=["more than are left", "that card"]
)
def test_a_request_that_only_a_person_can_end_holds_up_nobody(client, request_):
    quarantine(client, simulated(HOST), CARDS[0], "sent in until March", Owner())
    work = Work(lambda: pool(client).acquire(timeout=60, **request_))
    gate = pool_name(f"gpu-sim/{HOST}")
    until(lambda: client.record(pool_name(f"gpu-sim/{HOST}", CARDS[1])), "it has begun")
    with pool(client).acquire(timeout=30) as leases:
        assert leases.members == (CARDS[1],)
    until(lambda: not client.inspect(gate).claims, "it is not at the gate")
    assert not work.done
    give_back(client, simulated(HOST), CARDS[0], "", Owner())
    with work.result() as leases:
        assert CARDS[0] in leases.members


def test_a_card_that_is_kept_is_handed_over_if_it_is_still_well(client, say):
    """The card has its last holder's remains; the receipt of a continued hold no longer reports them."""
    say(card0={"used": "2GiB"})
    held = pool(client).acquire(ids=[CARDS[1]], timeout=30)
    work = Work(lambda: pool(client).acquire(2, allow_busy=True, accept_dirty=True, settle=1.0, timeout=60))
    until(lambda: client.inspect(pool_name(f"gpu-sim/{HOST}", CARDS[0])).holders)
    held.release()
    with work.result() as leases:
        assert set(leases.members) == {CARDS[0], CARDS[1]}


@pytest.mark.parametrize(
    "timeout, what", [(0, "1 GPU cannot be had now"), (1.5, r"timed out after [\d.]+ s waiting for 1 GPU")]
)
def test_a_request_that_gets_no_card_says_why_and_what_would_help(client, say, timeout, what):
    say(card0={"processes": [BOB]}, card1={"faults": ["the card must be reset"]})
    with pytest.raises(AcquireTimeout) as refused:
        pool(client).acquire(timeout=timeout)
    reasons = "GPU 0: busy (unmanaged): bob pid 4711 (jupyter), 12 GiB; GPU 1: the card must be reset"
    assert re.fullmatch(f"{what}; {re.escape(reasons)}", refused.value.message)
    assert refused.value.name == f"gpu-sim/{HOST}"
    instead = "wait longer" if timeout else "give a timeout to wait"
    assert refused.value.hint == f"allow_busy=True takes GPU 0 although it is in use; {instead}"


def test_a_request_that_gets_no_card_names_the_command_that_shows_the_cards(tmp_path, client):
    assert client.namespace  # it has a state folder of its own
    with lockkit.connect(f"sqlite:{tmp_path}/locks.db") as shared:
        mark = quarantine(shared, simulated(HOST), CARDS[0], "it hums", Owner(host="box", user="ann"))
        with pytest.raises(AcquireTimeout, match=f"GPU 0: {mark}") as refused:
            pool(shared, 1).acquire(timeout=0)
    store = f"--url sqlite:{tmp_path}/locks.db --gpu-sim 1"
    assert refused.value.hint == (
        f"to give GPU 0 back: lockkit gpu clear {CARDS[0]} {store}; "
        f"give a timeout to wait, or look with: lockkit gpu ls {store}"
    )


def test_a_request_whose_turn_has_not_come_says_who_is_before_it(client, say):
    say(card0={"processes": [BOB]})
    told = []
    work = Work(lambda: pool(client).acquire(2, timeout=30, on_wait=told.append))
    until(lambda: told)
    with pytest.raises(
        AcquireTimeout,
        match=r"^1 GPU cannot be had now: another request comes first; it is that of .*give a timeout",
    ):
        pool(client).acquire(timeout=0)
    with pytest.raises(AcquireTimeout, match=r"^1 GPU cannot be had in time: another request comes first; "):
        pool(client).acquire(timeout=0.5)
    say()
    work.result(30).release()


def test_a_request_gets_a_card_when_its_last_user_without_a_lock_has_gone(client, say):
    say(card0={"processes": [BOB]}, card1={"faults": ["the card must be reset"]})
    told = []
    work = Work(lambda: pool(client).acquire(timeout=30, on_wait=told.append))
    until(lambda: told)
    assert "must be reset" in told[0].refused[CARDS[1]]
    say(card1={"faults": ["the card must be reset"]})
    with work.result(30) as leases:
        assert leases.members == (CARDS[0],)


def test_small_jobs_share_a_card_by_memory_and_a_whole_card_waits(client):
    cards = pool(client, 1)
    with cards.acquire(memory="8GiB", timeout=5), cards.acquire(memory="8GiB", timeout=30) as second:
        assert second.members == (CARDS[0],)
        with pytest.raises(AcquireTimeout):
            cards.acquire(memory="8GiB", timeout=0)
        with pytest.raises(AcquireTimeout):
            cards.acquire(timeout=0)
    with cards.acquire(timeout=30):
        pass


def test_cards_that_are_shown_to_child_processes_do_not_hide_the_others_from_later_requests(client):
    cards = pool(client)
    with cards.acquire(timeout=5) as first, first.visible(), cards.acquire(timeout=30) as second:
        assert {*first.members, *second.members} == {*CARDS[:2]}


@pytest.mark.parametrize("beginning", [CARDS[1][:12], "1"])
def test_a_card_may_be_named_by_the_beginning_of_its_uuid(client, beginning):
    with pool(client).acquire(ids=[beginning], timeout=30) as leases:
        assert leases.members == (CARDS[1],)


def test_the_environment_is_never_widened(client, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", CARDS[1])
    with pool(client).acquire(timeout=30) as leases:
        assert leases.members == (CARDS[1],)
    for hidden in ("", "NoDevFiles", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES hides it"):
            pool(client).acquire(timeout=30)


@pytest.mark.parametrize(
    "how, told",
    [
        ({"count": 0}, "count must be"),
        ({"count": 3}, "3 GPUs can never be had: this host has only 2"),
        ({"memory": "90GiB"}, "it has only 23.5 GiB for programs"),
        ({"min_free": "90GiB"}, "it has only 23.5 GiB for programs"),
        ({"min_free": "a lot"}, "min_free must be a size"),
        ({"ids": ["GPU-none"]}, "there is no GPU 'GPU-none'"),
        ({"ids": ["7"]}, "there is no GPU '7'"),
        ({"ids": "GPU"}, "ids must be a list"),
        ({"ids": [0]}, "as strings"),
        ({"model": "H100"}, "it is a Simulated GPU"),
        ({"settle": -1}, "settle"),
        ({"model": 5}, "model must be a part of the name"),
        ({"model": ""}, "model must be a part of the name"),
        ({"affinity": "x"}, "affinity must be True or False"),
        ({"allow_busy": 1}, "allow_busy must be True or False"),
        ({"accept_dirty": None}, "accept_dirty must be True or False"),
    ],
)
def test_a_request_that_can_never_be_met_is_refused_before_it_queues(client, how, told):
    with pytest.raises(ConfigError, match=told):
        pool(client).acquire(**how)
    assert nothing_left(client)


@pytest.mark.parametrize(
    "option, value", [("timeout", -3), ("ttl", "long"), ("reentrant", True), ("colour", 1)]
)
def test_a_wrong_option_is_refused_when_the_pool_is_made(client, option, value):
    with pytest.raises(ConfigError, match=option):
        pool(client, **{option: value})


def test_cards_that_are_not_held_any_more_are_shown_to_nobody(client):
    with pool(client).acquire(timeout=30) as leases:
        assert leases.environment("uuid")["CUDA_VISIBLE_DEVICES"] == leases.members[0]
        with pytest.raises(ConfigError, match="by must be 'index', 'uuid' or None, not 'bus'"):
            leases.environment("bus")
    for ask in (leases.environment, leases.visible):
        with pytest.raises(NotHeld):
            ask()


def test_a_request_above_the_capacity_in_the_record_is_refused_with_the_reason_for_each_card(client):
    cards = pool(client)
    cards.acquire(2, timeout=30).release()
    for uuid in CARDS[:2]:
        client.resize(pool_name(cards.name, uuid), 4096)
    with pytest.raises(ConfigError, match=r"can never be had.*its record has only 4 GiB for claims"):
        cards.acquire(memory="8GiB")
    with cards.acquire(memory="4GiB", timeout=30):
        pass


def test_a_small_job_waits_behind_a_whole_one_that_came_before_it(client):
    cards = pool(client, 1)
    turn, order = threading.Event(), []

    def whole():
        with cards.acquire(timeout=30, on_wait=lambda _: turn.set()):
            order.append("whole")

    def share():
        with cards.acquire(memory="1GiB", timeout=30):
            order.append("share")

    with cards.acquire(memory="1GiB", timeout=30):
        big = threading.Thread(target=whole)
        big.start()
        assert turn.wait(30)
        with pytest.raises(AcquireTimeout):
            cards.acquire(memory="1GiB", timeout=0)  # there is room for it beside the other share
        small = threading.Thread(target=share)
        small.start()
    big.join(30)
    small.join(30)
    assert order == ["whole", "share"]


def test_a_host_without_cards_says_what_to_do(client, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises((DevicesUnavailable, ConfigError)) as caught:
        lockkit.gpu.pool(client, simulate=0).acquire(timeout=1)
    assert caught.value.hint


def test_indices_name_cards_as_well_as_uuids(client):
    with pool(client, 3).acquire(2, ids=["2", CARDS[0]], timeout=30) as leases:
        assert set(leases.members) == {CARDS[0], CARDS[2]}


def test_the_capacity_of_a_card_stays_as_it_was_when_the_card_was_first_used(client):
    (card,) = SimulatedProvider(1).snapshot().devices
    first = capacities(client, "gpu/box", [card])
    assert first == {card.uuid: (24 * GIB - card.reserved) // MIB}
    assert capacities(client, "gpu/box", [card._replace(memory=20 * GIB)]) == first
    record = client.record(pool_name("gpu/box", card.uuid))
    client.put_record(record.name, {**record.value, "capacity": 100, "other": 1}, record.version)
    assert capacities(client, "gpu/box", [card]) == {card.uuid: 100}


def test_a_resize_changes_the_record_of_a_card_and_another_total_of_the_driver_does_not(client, say):
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    with pool(client, 1).acquire(memory="8GiB", timeout=30):
        assert client.resize(name, 20 * 1024) == 1
        assert client.inspect(name).capacity == 20 * 1024
        say(card0={"memory": "40GiB"})
        with pool(client, 1).acquire(memory="12GiB", timeout=30), pytest.raises(AcquireTimeout):
            pool(client, 1).acquire(memory="1MiB", timeout=0)
        with pytest.raises(AcquireTimeout):
            pool(client, 1).acquire(timeout=0)
    with pool(client, 1).acquire(timeout=30) as leases:
        assert leases[0].terms.weight == leases[0].terms.capacity == 20 * 1024
    say(card0={"memory": "6GiB"})
    assert client.resize(name, 5 * 1024) == 0
    with pool(client, 1).acquire(timeout=30) as leases:
        assert leases[0].terms.capacity == 5 * 1024


@pytest.mark.parametrize("capacity", [10**15, 10**400, 0, "much", True])
def test_a_capacity_that_no_lock_can_have_keeps_the_card_from_all_until_a_person_clears_it(client, capacity):
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    client.put_record(name, {"capacity": capacity, "about": {"index": 10**400}}, 0)
    with pytest.raises(AcquireTimeout, match="its record in the store is damaged"):
        pool(client, 1).acquire(timeout=0)
    assert give_back(client, simulated(HOST), CARDS[0], "", client.owner, CARDS[:1])
    with pool(client, 1).acquire(timeout=30) as leases:
        assert leases[0].terms.capacity == client.record(name).value["capacity"] == 24064


def test_a_card_that_is_held_whole_does_not_grow_until_its_release(client):
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    with pool(client, 1).acquire(timeout=30):
        before = client.inspect(name).capacity
        with pytest.raises(ConfigError, match="is held whole by") as refused:
            client.resize(name, before + 4096)
        assert refused.value.holder.weight == before
        assert "wait until it is released, then resize it" in refused.value.hint
        assert (client.inspect(name).capacity, client.record(name).value["capacity"]) == (before, before)
        with pytest.raises(AcquireTimeout):
            pool(client, 1).acquire(memory="2GiB", timeout=0)
        assert client.resize(name, 10_000) == 1
        assert client.resize(name, before) == 1
        with pytest.raises(ConfigError, match="is held whole by"):
            client.resize(name, before + 1)
    assert client.resize(name, before + 4096) == 0
    with pool(client, 1).acquire(timeout=30) as leases:
        assert leases[0].terms.weight == leases[0].terms.capacity == before + 4096


def test_a_card_does_not_grow_while_somebody_waits_for_all_of_it(client):
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    share = pool(client, 1).acquire(memory="8GiB", timeout=30)
    work = Work(lambda: pool(client, 1).acquire(timeout=30))
    until(lambda: len(client.inspect(name).claims) == 2)
    before = client.inspect(name).capacity
    with pytest.raises(ConfigError, match="is waited for, whole, by"):
        client.resize(name, before + 4096)
    share.release()
    with work.result() as leases:
        assert leases[0].terms.weight == client.inspect(name).capacity == before


def test_sharers_of_a_card_that_was_made_too_small_do_not_keep_it_from_growing_again(client):
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    cards = pool(client, 1)
    with cards.acquire(memory="8GiB", timeout=5), cards.acquire(memory="8GiB", timeout=30):
        assert client.resize(name, 4096) == 2
        assert client.resize(name, 20_000) == 2


@pytest.mark.parametrize("beside", [True, False])
def test_a_claim_for_a_whole_card_that_comes_while_the_card_is_resized_stays_whole(
    client, monkeypatch, beside
):
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    with pool(client, 1).acquire(memory="8GiB", timeout=30) as share:
        before = client.inspect(name).capacity
        if not beside:
            share.release()
        write, come = client.put_record, []

        def late(*args):
            monkeypatch.undo()
            record = write(*args)
            # As one that has read the record before.
            lock = client.pool(f"gpu-sim/{HOST}", {CARDS[0]: before})
            come.append(Work(lambda: lock.acquire(timeout=30)))
            until(lambda: len(client.inspect(name).claims) == 1 + beside)
            return record

        monkeypatch.setattr(client, "put_record", late)
        with pytest.raises(ConfigError, match="whole"):
            client.resize(name, before + 4096)
        assert client.record(name).value["capacity"] == before
        share.release()
        with come[0].result() as leases:
            assert leases[0].terms.weight == client.inspect(name).capacity == before


def test_a_resize_that_cannot_change_the_record_of_a_card_changes_nothing(client, monkeypatch):
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    with pool(client, 1).acquire(memory="8GiB", timeout=30):
        before = client.inspect(name).capacity

        def full(*_args):
            raise BackendUnavailable("the disk is full")

        monkeypatch.setattr(type(client.driver().backend), "put_record", full)
        with pytest.raises(BackendUnavailable, match="the disk is full"):
            client.resize(name, 10 * 1024)
        monkeypatch.undo()
        assert client.inspect(name).capacity == before


def test_a_resize_that_cannot_change_the_claims_says_that_the_record_is_changed(client, monkeypatch):
    name = pool_name(f"gpu-sim/{HOST}", CARDS[0])
    with pool(client, 1).acquire(memory="8GiB", timeout=30):

        def refuse(*_args):
            raise Refused(PermissionDenied("the server refused", hint="ask"))

        monkeypatch.setattr(type(client.driver().backend), "resize", refuse)
        with pytest.raises(PermissionDenied) as caught:
            client.resize(name, 10 * 1024)
        assert "record has capacity 10240 already: resize it again" in caught.value.hint
        monkeypatch.undo()
        assert client.resize(name, 10 * 1024) == 1
        assert client.inspect(name).capacity == 10 * 1024


def test_a_resize_writes_no_record_of_a_lock_that_is_in_no_pool(client):
    client.put_record("licences", {"capacity": 3}, 0)
    assert client.resize("licences", 5) == 0
    assert client.record("licences").value == {"capacity": 3}


def test_a_card_whose_memory_cannot_be_told_has_no_capacity(client):
    (card,) = SimulatedProvider(1).snapshot().devices
    assert capacities(client, "gpu/box", [card._replace(memory=None)]) == {}


@pytest.mark.parametrize("hung", ["driver", "store"])
def test_the_time_of_a_request_begins_before_the_driver_and_the_store_are_asked(client, monkeypatch, hung):
    go = threading.Event()
    cards = pool(client)
    if hung == "driver":
        monkeypatch.setattr(type(cards._cards._providers[0]), "snapshot", lambda _self: go.wait(30))
    else:
        monkeypatch.setattr(client, "record", lambda _name: go.wait(30))
    with pytest.raises(AcquireTimeout, match="while the driver of the GPUs and the store were asked"):
        cards.acquire(timeout=0.3)
    go.set()


def test_the_time_of_the_first_look_is_none_left_to_wait_nor_to_drain(client):
    asked = {
        "min_free": None,
        "memory": None,
        "model": None,
        "ids": None,
        "allow_busy": False,
        "settle": 20.0,
    }
    began = time.monotonic() - 0.4

    checked = pool(client)._cards.checked_within(1.0, 1, began=began, affinity=True, **asked)

    assert checked.timeout is not None
    assert 0 < checked.timeout <= 0.6
    assert checked.chooser.until == began + 1.0


INSIDE = """
import json, sys
import lockkit, lockkit.gpu
with lockkit.connect() as client:
    try:
        with lockkit.gpu.pool(client).acquire(timeout=60, **json.loads(sys.argv[1])) as leases:
            print("holds", leases.devices[0].index)
    except lockkit.DeadlockDetected as error:
        print(error)
"""
SEES_ALL = ["env", "-u", "CUDA_VISIBLE_DEVICES"]


@pytest.mark.parametrize(
    "outer, command, asked, says",
    [
        ([], [], {}, "the lockkit run or task around this program holds GPU 0"),
        ([], SEES_ALL, {"count": 2}, "the lockkit run or task around this program holds GPU 0"),
        ([], SEES_ALL, {}, "holds 1"),
        (["--gpu-mem", "8GiB"], [], {"memory": "8GiB"}, "holds 0"),
        (["--gpu-mem", "8GiB"], [], {}, "the lockkit run or task around this program holds GPU 0"),
    ],
    ids=["its-card", "one-of-two", "another", "share-beside-share", "whole-beside-share"],
)
def test_a_program_under_run_does_not_wait_for_the_cards_of_that_run(tmp_path, outer, command, asked, says):
    environ = os.environ | {"LOCKKIT_STATE_DIR": str(tmp_path), "LOCKKIT_GPU_SIMULATE": "2"}
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    run = [sys.executable, "-m", "lockkit", "run", "--gpu", "1", "--gpu-id", "0", "--private", "-q", *outer]
    inside = [*command, sys.executable, "-c", INSIDE, json.dumps(asked)]
    done = subprocess.run(
        [*run, "--", *inside], env=environ, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stdout.startswith(says), done.stderr
