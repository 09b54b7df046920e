"""Simulated cards: the same each time, and steered by a file."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from lockkit.errors import DevicesUnavailable
from lockkit.gpu.devices import DeviceProcess
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.values.sizes import GIB


@pytest.fixture
def state(tmp_path):
    return tmp_path / "cards.json"


def cards(provider):
    return provider.snapshot().devices


def test_the_cards_of_a_host_are_the_same_each_time_and_no_other_hosts():
    first, again = SimulatedProvider(2, host="box"), SimulatedProvider(4, host="box")
    other = SimulatedProvider(4, host="crate")
    uuids = [card.uuid for card in cards(again)]
    assert [card.uuid for card in cards(first)] == uuids[:2]
    assert len({*uuids, *(card.uuid for card in cards(other))}) == 8
    assert uuids[0] == "GPU-54a033e8-179f-575a-96c5-1cc2999ec69f"


def test_without_a_state_file_every_card_is_idle(state):
    for card in cards(SimulatedProvider(2, state)):
        assert (card.processes, card.used, card.utilisation, card.faults, card.parent) == ((), 0, 0, (), None)
        assert card.usable == card.free == card.memory - card.reserved > 0


def test_the_file_puts_a_process_on_a_card_and_takes_it_away_again(state):
    provider = SimulatedProvider(2, state)
    process = {"pid": 4711, "user": "bob", "program": "jupyter", "memory": "12GiB"}
    state.write_text(json.dumps({"1": {"processes": [process]}}))
    idle, busy = cards(provider)
    assert idle.processes == ()
    assert busy.processes == (DeviceProcess(4711, "bob", "jupyter", 12 * GIB),)
    assert (busy.used, busy.utilisation) == (12 * GIB, 100)
    state.unlink()
    assert cards(provider)[1].processes == ()


def test_leftover_memory_a_fault_and_another_model(state):
    state.write_text(
        json.dumps({"0": {"used": "3GiB", "faults": ["it hums"], "name": "H100", "memory": "80GiB"}})
    )
    (card,) = cards(SimulatedProvider(1, state))
    assert (card.used, card.processes, card.faults, card.name) == (3 * GIB, (), ("it hums",), "H100")
    assert card.free == 80 * GIB - card.reserved - 3 * GIB


def test_a_process_may_be_there_only_while_it_lives(state):
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        own = [{"pid": pid, "memory": 1, "while_alive": True} for pid in (os.getpid(), sleeper.pid)]
        state.write_text(json.dumps({"0": {"processes": own}}))
        provider = SimulatedProvider(1, state)
        assert [one.pid for one in cards(provider)[0].processes] == [os.getpid(), sleeper.pid]
        sleeper.kill()
    assert [one.pid for one in cards(provider)[0].processes] == [os.getpid()]


@pytest.mark.parametrize(
    "text, told",
    [
        ("{", r"cards\.json does not describe simulated GPUs: "),
        ('{"2": {}}', r"there is no card '2' \(the cards are 0 to 1\)"),
        (
            '{"1": {"process": []}}',
            "card 1: .*unknown field `process`.*the keys of a card are name, memory, used",
        ),
        ('{"0": {"used": "much"}}', "used must be a size, not 'much'"),
        ('{"0": {"processes": [{"memory": "-1"}]}}', "memory must be"),
        ('{"0": {"memory": "0GiB"}}', "memory must be more than 0"),
        (" " * 70_000, "longer than 64 KiB"),
    ],
)
def test_a_wrong_state_file_is_named_with_what_is_wrong(state, text, told):
    state.write_text(text)
    with pytest.raises(DevicesUnavailable, match=told):
        SimulatedProvider(2, state).snapshot()


def test_a_watch_reports_what_happened_since_it_began(state):
    provider = SimulatedProvider(2, state)
    first, second = (card.uuid for card in cards(provider))
    state.write_text(json.dumps({"0": {"events": ["Xid 48"]}}))
    watch = provider.watch([first])
    assert watch.faults(first) == ()
    state.write_text(json.dumps({"0": {"events": ["Xid 48", "Xid 79"]}, "1": {"events": ["Xid 31"]}}))
    assert watch.faults(first) == ("Xid 79",)
    assert watch.faults(second) == ()
    watch.close()
    watch.close()
    assert watch.faults(first) == ()
