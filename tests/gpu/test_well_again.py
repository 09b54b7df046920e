"""Recovery gives back cards that were quarantined without a person: on simulated ones that a file steers."""

from __future__ import annotations

import json
import os
import threading

import pytest

import lockkit
from lockkit.facts import Owner
from lockkit.gpu.devices import BasicProvider, Device, DeviceProcess, Snapshot
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.quarantine import clear, quarantine, quarantine_faulty, quarantined
from lockkit.gpu.simulated import STATE_FILE, SimulatedProvider
from lockkit.hooks import hookimpl
from lockkit.observe import journal
from lockkit.observe.recovery import LOCK, Recoverer, recover
from lockkit.testing.processes import until

HOST = os.uname().nodename
SIMULATED = simulated(HOST)
CARDS = [card.uuid for card in SimulatedProvider(4).snapshot().devices]
ANN = Owner("ann", "box", 4711)


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    with lockkit.connect(f"memory://{os.urandom(8).hex()}", gpu_simulate=4) as client:
        yield client


@pytest.fixture
def say(tmp_path):
    def say(**state):
        cards = {name.removeprefix("card"): card for name, card in state.items()}
        (tmp_path / STATE_FILE).write_text(json.dumps(cards))

    say()
    return say


@pytest.fixture
def mark(client):
    """Marks a card as a program does that finds it faulty."""
    return lambda card=CARDS[0]: quarantine_faulty(client, SIMULATED, card, "Xid 79", ANN, CARDS)


def outcomes(client, **how):
    return [(one.case.kind, one.outcome) for one in recover(client, act=True, between=0.0, **how).results]


def actions(client):
    return journal.read(client.config.state_place().path, file=journal.ACTIONS)


def test_a_card_that_is_well_again_is_given_back_with_a_record(client, say, mark):
    mark()
    (dry,) = recover(client).results
    assert (dry.case.action, dry.outcome, len(quarantined(client, SIMULATED))) == ("fix", "", 1)

    assert outcomes(client) == [("card", "cleared")]

    assert quarantined(client, SIMULATED) == {}
    began, ended = actions(client)
    assert (began["seen"]["card"], began["seen"]["quarantined"]["reason"]) == (CARDS[0], "Xid 79")
    assert (
        "GPU 0 is well again: the driver reports no fault, and nothing uses it. "
        "It was found faulty by ann@box" in began["why"]
    )
    assert ended["outcome"] == "cleared"
    assert outcomes(client) == []


def test_what_the_driver_does_not_show_stays_until_a_person_clears_it(client, say):
    quarantine_faulty(
        client, SIMULATED, CARDS[0], "preflight: it computes wrong results", ANN, CARDS, lasting=True
    )
    assert outcomes(client) == []
    assert [mark.lasting for mark in quarantined(client, SIMULATED).values()] == [True]


def test_the_mark_of_a_person_stays(client, say):
    quarantine(client, SIMULATED, CARDS[0], "it hums", ANN)

    assert outcomes(client) == []
    assert quarantined(client, SIMULATED).keys() == {CARDS[0]}


@pytest.mark.parametrize(
    "state",
    [
        {"faults": ["the card must be reset"]},
        {"used": "3GiB"},
        {"processes": [{"pid": 4711, "user": "bob", "program": "jupyter", "memory": "1GiB"}]},
    ],
    ids=["faulty", "memory", "in use"],
)
def test_a_card_that_is_not_well_at_one_of_two_looks_stays_away(client, say, mark, state, monkeypatch):
    mark()
    say(card0=state)
    assert outcomes(client) == []
    say()

    def between(_self, cases):
        assert [case.kind for case in cases] == ["card"]
        say(card0=state)

    monkeypatch.setattr(Recoverer, "_wait_between_looks", between)

    assert outcomes(client) == [("card", "changed")]
    assert quarantined(client, SIMULATED).keys() == {CARDS[0]}
    assert actions(client) == []


def test_time_passes_between_the_two_looks_and_only_then(client, say, mark, monkeypatch):
    waited = []
    recoverer = Recoverer(client, act=True, between=7.0)
    monkeypatch.setattr(recoverer._stop, "wait", waited.append)
    recoverer.once()
    assert waited == []
    mark()

    recoverer.once()

    assert waited == [7.0]


@pytest.mark.parametrize("by_a_person", [False, True])
def test_a_mark_that_came_between_the_looks_stays(client, say, mark, monkeypatch, by_a_person):
    mark()

    def between(_self, _cases):
        clear(client, SIMULATED, CARDS[0])
        if by_a_person:
            quarantine(client, SIMULATED, CARDS[0], "Xid 79", ANN)
        else:
            quarantine_faulty(client, SIMULATED, CARDS[0], "its fan stands still", ANN, CARDS)

    monkeypatch.setattr(Recoverer, "_wait_between_looks", between)

    assert outcomes(client) == [("card", "changed")]
    assert quarantined(client, SIMULATED).keys() == {CARDS[0]}


def test_a_mark_that_came_just_before_the_change_stays(client, say, mark, monkeypatch):
    """The last moment is the store's: only the mark that was seen is removed."""
    mark()
    append = journal.append

    def late(folder, about, **how):
        if "action" in about:
            quarantine(client, SIMULATED, CARDS[0], "it hums", ANN)
        return append(folder, about, **how)

    monkeypatch.setattr(journal, "append", late)

    assert outcomes(client) == [("card", "changed")]
    assert [one.automatic for one in quarantined(client, SIMULATED).values()] == [False]


def test_cards_count_for_the_limit_of_an_hour(client, say, mark):
    mark(CARDS[0])
    mark(CARDS[1])
    with lockkit.connect(client.url, gpu_simulate=4, recover_limit=1) as limited:
        assert sorted(outcomes(limited)) == [("card", "cleared"), ("card", "limited")]
        assert outcomes(limited) == [("card", "limited")]
    assert len(quarantined(client, SIMULATED)) == 1


def test_a_recoverer_that_is_not_elected_gives_back_the_cards_of_its_host(client, say, mark):
    """The elected one may be on another host, whose driver does not know them."""
    mark()
    with lockkit.connect(client.url) as other, other.lock(LOCK).acquire():
        done = recover(client, act=True, between=0.0)

    assert (done.acting, [one.outcome for one in done.results]) == (False, ["cleared"])


def test_where_nothing_can_be_said_of_a_card_it_stays_away(client, say, mark, tmp_path, monkeypatch):
    gone = "GPU-00000000-gone"
    mark(gone)
    (tmp_path / STATE_FILE).write_text("nonsense")
    mark()
    (told,) = recover(client, act=True, between=0.0).results
    assert (told.case.action, told.outcome, told.case.seen["cards"]) == ("tell", "", [gone, CARDS[0]])
    assert "is well again cannot be told: " in told.case.why
    say()
    assert outcomes(client) == [("card", "cleared")]
    assert quarantined(client, SIMULATED).keys() == {gone}


CARD = Device("GPU-1", 0, memory=80, used=0, processes=(), sliced=True)
SLICE = Device("MIG-1", 0, memory=40, used=0, processes=(), parent="GPU-1")


class Divided(BasicProvider):
    """A divided card, as a plugin may offer it."""

    name = "divided"

    def __init__(self, card, part):
        self.devices, self.closed = (card, part), 0

    def snapshot(self):
        return Snapshot(0.0, self.devices)

    def close(self):
        self.closed += 1

    @hookimpl
    def lockkit_devices(self):
        return [self]


@pytest.mark.parametrize("marked", ["GPU-1", "MIG-1"])
@pytest.mark.parametrize(
    "card, part, well",
    [
        (CARD, SLICE, True),
        (CARD._replace(faults=("the card must be reset",)), SLICE, False),
        (CARD, SLICE._replace(processes=(DeviceProcess(4711),)), False),
        (CARD, SLICE._replace(processes=None), False),
        (CARD, SLICE._replace(faults=("it is lost",)), False),
    ],
    ids=["well", "card faulty", "slice in use", "use unknown", "slice faulty"],
)
def test_a_card_is_as_well_as_its_slices_and_a_slice_as_its_card(
    tmp_path, monkeypatch, card, part, well, marked
):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    provider = Divided(card, part)
    with lockkit.connect(f"memory://{os.urandom(8).hex()}", plugins=[provider]) as client:
        quarantine_faulty(client, HOST, marked, "Xid 79", ANN, ["GPU-1"])

        assert outcomes(client) == ([("card", "cleared")] if well else [])
        assert provider.closed >= 1, "the driver is let go of, so that a card can be reset"


class Hanging(Divided):
    """A driver that hangs at each look until ``back`` is set, and at a close as long as a look does."""

    def __init__(self):
        super().__init__(CARD, SLICE)
        self.back, self.looks, self.mutex = threading.Event(), 0, threading.Lock()

    def snapshot(self):
        self.looks += 1
        with self.mutex:
            self.back.wait()
            return super().snapshot()

    def close(self):
        with self.mutex:
            super().close()


def test_a_driver_that_hangs_is_told_of_and_keeps_no_recoverer_from_its_next_round(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LOCKKIT_GPU_PATIENCE", "100ms")
    driver, rounds = Hanging(), []
    try:
        with lockkit.connect(f"memory://{os.urandom(8).hex()}", plugins=[driver]) as client:
            quarantine_faulty(client, HOST, "GPU-1", "Xid 79", ANN, ["GPU-1"])
            recoverer = Recoverer(client, between=0.0)
            thread = threading.Thread(target=recoverer.run, args=(0.01, rounds.append), daemon=True)
            thread.start()
            until(lambda: len(rounds) > 1)
            assert driver.looks == 1, "it is asked again before it has returned"
            whys = {one.case.why for done in rounds for one in done.results}
            assert any("driver of the device provider divided has not answered within" in why for why in whys)
            driver.back.set()
            until(lambda: not quarantined(client, HOST))
            recoverer.stop()
            thread.join()
            assert not client.inspect(LOCK).claims
    finally:
        driver.back.set()
