"""Free cards that a request finds faulty: quarantined under its claim, once, and only beyond doubt."""

from __future__ import annotations

import asyncio
import os
from uuid import uuid4

import pytest

import lockkit
import lockkit.aio
import lockkit.gpu
import lockkit.gpu.aio
from lockkit.errors import AcquireTimeout, BackendUnavailable
from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.choosing import CardFacts
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.fault_check import LASTS, FaultCheck
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.marks import record_name
from lockkit.gpu.quarantine import clear, find_faulty, quarantined
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.testing.processes import until
from lockkit.testing.stage import Work

SIMULATED = simulated(os.uname().nodename)
CARDS = [card.uuid for card in SimulatedProvider(4).snapshot().devices]
FAULT = {"faults": ["the driver asks for a reset of the card"]}


class Alerts:
    """A plugin that keeps the alerts about cards."""

    def __init__(self):
        self.seen = []

    @lockkit.hookimpl
    def lockkit_alert(self, alert):
        if alert.kind.startswith("gpu_"):
            self.seen.append(alert)

    def about(self, client):
        client.driver().dispatcher.flush(10)
        return [(alert.kind, alert.data["uuid"]) for alert in self.seen]


@pytest.fixture
def alerts():
    return Alerts()


@pytest.fixture
def client(tmp_path, monkeypatch, alerts):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with lockkit.connect(f"memory://{uuid4().hex}", plugins=[alerts], gpu_watch=False) as client:
        client.names()  # opens the store, which lasts as long as one client has it open
        yield client


def pool(client, simulate=4):
    return lockkit.gpu.pool(client, simulate=simulate)


@pytest.mark.parametrize("timeout", [0, 5])
def test_the_request_that_finds_a_free_card_faulty_quarantines_it_and_takes_another(
    client, say, alerts, timeout
):
    say(card0=FAULT)
    with pool(client).acquire(timeout=timeout) as leases:
        assert leases.members == (CARDS[1],)
    [mark] = quarantined(client, SIMULATED).values()
    me = client.owner
    assert (mark.uuid, mark.reason, mark.by) == (CARDS[0], *FAULT["faults"], f"{me.user}@{me.host}")
    assert (mark.automatic, mark.lasting) == (True, False)
    assert alerts.about(client) == [("gpu_quarantined", CARDS[0])]
    assert client.inspect(pool_name(pool(client).name, CARDS[0])).claims == ()
    pool(client).acquire(3, timeout=0).release()  # the next one leaves it alone, and nobody is told again
    assert alerts.about(client) == [("gpu_quarantined", CARDS[0])]


def test_under_asyncio_a_request_does_the_same(say, client):
    say(card0=FAULT)

    async def run():
        async with lockkit.aio.connect(client.url) as other:
            leases = await lockkit.gpu.aio.pool(other, simulate=4).acquire(timeout=30)
            assert leases.members == (CARDS[1],)
            await leases.release()

    asyncio.run(run())
    assert quarantined(client, SIMULATED).keys() == {CARDS[0]}


def test_at_most_half_of_the_cards_are_taken_and_people_are_told_once_of_the_rest(client, say, alerts):
    say(**{f"card{number}": FAULT for number in range(4)})
    for _ in range(3):
        with pytest.raises(AcquireTimeout, match="the driver asks for a reset of the card"):
            pool(client).acquire(timeout=0)
    assert quarantined(client, SIMULATED).keys() == set(CARDS[:2])
    told = [("gpu_quarantined", card) for card in CARDS[:2]]
    told += [("gpu_not_quarantined", card) for card in CARDS[2:]]
    assert alerts.about(client) == told
    clear(client, SIMULATED, CARDS[0])  # there is room for one
    with pytest.raises(AcquireTimeout):
        pool(client).acquire(timeout=0)
    assert len(quarantined(client, SIMULATED)) == 2


def test_a_request_for_a_card_that_the_limit_keeps_in_use_holds_up_nobody(client, say):
    say(**{f"card{number}": FAULT for number in range(3)})
    for card in CARDS[:3]:  # two of the three are quarantined, and no more may be
        find_faulty(client, SIMULATED, card, *FAULT["faults"], client.owner, CARDS)
    work = Work(lambda: pool(client).acquire(2, timeout=60))
    until(lambda: client.record(pool_name(pool(client).name, CARDS[3])), "it has begun")
    with pool(client).acquire(timeout=30) as leases:
        assert leases.members == (CARDS[3],)
    assert not work.done
    say()  # the card was reset
    with work.result() as leases:
        assert set(leases.members) == set(CARDS[2:])


def test_a_faulty_card_that_somebody_holds_is_left_to_its_holder(client, say, alerts):
    with lockkit.connect(client.url, gpu_watch=False) as other:
        theirs = pool(other).acquire(ids=["0"], timeout=0)
        share = pool(other).acquire(ids=["1"], memory="1GiB", timeout=0)
        say(card0=FAULT, card1=FAULT)
        with pool(client).acquire(memory="1GiB", timeout=0) as leases:
            assert leases.members == (CARDS[2],)
        assert quarantined(client, SIMULATED) == {}
        assert alerts.about(client) == []
        theirs.release()
        share.release()
    assert quarantined(client, SIMULATED).keys() == set(CARDS[:2])


def test_a_task_under_the_old_names_quarantines_its_card_and_does_not_run(client, say):
    say(card0=FAULT)
    done = []
    with lockkit.connect(client.url, gpu_simulate=4, gpu_watch=False) as mine:

        @lockkit.gpu.gpu_lock("gpu_lock:0", max_wait_time=1, client=mine)
        def task():
            done.append(1)

        with pytest.raises(AcquireTimeout, match="GPU_LOCK_TIMEOUT"):
            task()
    assert done == []
    assert quarantined(client, SIMULATED).keys() == {CARDS[0]}


# -- what is beyond doubt

LOST = Device("GPU-0", 0, faults=("the card has fallen off the bus",), unreachable=True)
SICK = Device("GPU-0", 0, "H100", 1 << 30, 0, 0, 0, (), faults=("the card must be reset",))
WELL = SICK._replace(faults=())
OTHER = WELL._replace(uuid="GPU-1", index=1)


class Checked:
    """A check at a time that the test says."""

    def __init__(self, client):
        self.at = 0.0
        self.check = FaultCheck(client, "box", (WELL, OTHER), lambda: self.at)
        me = client.owner
        self.mine = ClaimInfo("x", "c", "HELD", me, 1, 0)

    def look(self, card, at=None):
        self.at = self.at if at is None else at
        self.check.note((card, OTHER))
        return self.check.suspects(["GPU-0", "GPU-1"], (card, OTHER), {})


@pytest.fixture
def checked(client):
    return Checked(client)


def test_one_look_proves_nothing(checked):
    checked.look(SICK)
    assert checked.check.take(SICK, [checked.mine]) is None
    checked.look(WELL)
    checked.look(SICK)
    assert checked.check.take(SICK, [checked.mine]) is None
    checked.look(SICK)
    assert "it is quarantined" in checked.check.take(SICK, [checked.mine])


def test_a_card_that_the_driver_does_not_reach_may_be_in_a_reset_for_half_a_minute(checked, client):
    assert checked.look(LOST, 0.0) == ()
    assert checked.look(LOST, LASTS - 1) == ()
    assert checked.check.take(LOST, [checked.mine]) is None
    assert checked.look(WELL, LASTS - 0.5) == ()
    assert checked.look(LOST, LASTS) == ()  # it was there meanwhile
    assert checked.look(LOST, 2 * LASTS) == ("GPU-0",)
    assert "it is quarantined" in checked.check.take(LOST, [checked.mine])
    assert quarantined(client, "box").keys() == {"GPU-0"}


@pytest.mark.parametrize("facts", [CardFacts(quarantine="quarantined by ann@box: it hums"), "held"])
def test_what_is_held_or_quarantined_is_no_suspect(checked, facts):
    known = CardFacts((checked.mine,)) if facts == "held" else facts
    checked.check.note((SICK,))
    assert checked.check.suspects(["GPU-0"], (SICK,), {"GPU-0": known}) == ()
    assert checked.check.suspects(["GPU-1"], (SICK,), {}) == ()
    assert checked.check.suspects(["GPU-0"], (SICK,), {}) == ("GPU-0",)


def test_nothing_is_marked_under_a_claim_of_somebody_else(checked, client):
    checked.look(SICK)
    checked.look(SICK)
    theirs = checked.mine._replace(owner=Owner(user="bob", host="crate", pid=7))
    for holders in ([], [theirs], [checked.mine, theirs], [checked.mine, checked.mine]):
        assert checked.check.take(SICK, holders) is None
    assert quarantined(client, "box") == {}


def test_a_mark_that_the_store_does_not_take_fails_no_request(checked, client, monkeypatch):
    def away(*_):
        raise BackendUnavailable("it restarts")

    checked.look(SICK)
    checked.look(SICK)
    monkeypatch.setattr(client, "put_record", away)
    told = checked.check.take(SICK, [checked.mine])
    assert told == "the card must be reset; it could not be quarantined: it restarts"
    assert checked.look(SICK) == (), "it is not tried again at once"
    assert checked.look(SICK, 61.0) == ("GPU-0",)


def test_a_card_that_is_well_a_moment_later_is_neither_marked_nor_given_out_at_once(client, monkeypatch):
    seen = SimulatedProvider.snapshot
    looks = []

    def snapshot(provider):
        looks.append(1)
        found = seen(provider)
        sick = found.devices[0]._replace(faults=("the card must be reset",))
        return Snapshot(found.taken, (sick, *found.devices[1:])) if len(looks) == 2 else found

    monkeypatch.setattr(SimulatedProvider, "snapshot", snapshot)
    with pool(client).acquire(timeout=0) as leases:
        assert leases.members == (CARDS[1],)
    assert quarantined(client, SIMULATED) == {}
    pool(client).acquire(4, timeout=0).release()


def test_of_several_who_find_a_card_faulty_one_tells_people(client):
    found = [
        find_faulty(client, "box", uuid, "Xid 79", client.owner, CARDS[:2])
        for uuid in (CARDS[0], CARDS[0], CARDS[1], CARDS[1])
    ]
    assert [one.fresh for one in found] == [True, False, True, False]


def test_what_was_told_of_a_card_more_than_an_hour_ago_is_told_again(client):
    name = record_name("box")
    find_faulty(client, "box", CARDS[0], "Xid 79", client.owner, CARDS[:2])
    assert find_faulty(client, "box", CARDS[1], "Xid 79", client.owner, CARDS[:2]).fresh
    record = client.record(name)
    old = {CARDS[1]: record.value["spared"][CARDS[1]] - 3601}
    client.put_record(name, {**record.value, "spared": old}, record.version)
    assert find_faulty(client, "box", CARDS[1], "Xid 79", client.owner, CARDS[:2]).fresh


def test_a_card_that_the_limit_keeps_in_use_is_left_alone(checked, client):
    find_faulty(client, "box", "GPU-1", "Xid 79", client.owner, ["GPU-0", "GPU-1"])
    assert checked.look(SICK) == ("GPU-0",)
    assert find_faulty(client, "box", "GPU-0", "Xid 79", client.owner, ["GPU-0", "GPU-1"]).fresh
    assert checked.look(SICK) == ()
    clear(client, "box", "GPU-1")
    assert checked.look(SICK) == ("GPU-0",)
