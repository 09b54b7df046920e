"""The quarantine of cards: one mark for everybody, and never too many without a person."""

from __future__ import annotations

import os
from uuid import uuid4

import pytest

import lockkit
import lockkit.gpu
from lockkit.errors import BackendUnavailable, ConfigError, OutcomeUnknown
from lockkit.facts import Owner
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.homes import Homes
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.known import known
from lockkit.gpu.quarantine import (
    Capped,
    Quarantined,
    clear,
    give_back,
    limit,
    quarantine,
    quarantine_faulty,
    quarantined,
    record_name,
)
from lockkit.gpu.resolving import resolve
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.gpu.states import cards
from lockkit.store.spi import Conflict

ANN = Owner(user="ann", host="box")
CARDS = [f"GPU-{number:08d}-aaaa-bbbb-cccc-dddddddddddd" for number in range(64)]


@pytest.fixture
def client():
    with lockkit.connect(f"memory://{uuid4().hex}") as made:
        yield made


def test_a_mark_is_seen_by_all_until_it_is_cleared(client):
    mark = quarantine(client, "box", CARDS[0], "it hums", ANN)
    (seen,) = quarantined(client, "box").values()
    assert seen._replace(since=0) == Quarantined(CARDS[0], "it hums", "ann@box") == mark._replace(since=0)
    assert seen.since == mark.since
    assert str(seen) == "quarantined by ann@box: it hums"
    assert quarantined(client, "crate") == {}
    assert clear(client, "box", CARDS[0]) == seen
    assert quarantined(client, "box") == {}
    assert clear(client, "box", CARDS[0]) is None


@pytest.mark.parametrize("count, most", [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (9, 4), (64, 32)])
def test_without_a_person_at_least_one_card_and_at_most_half_of_them_are_quarantined(client, count, most):
    mine = CARDS[:count]
    answers = [quarantine_faulty(client, "box", uuid, "Xid 79", ANN, mine) for uuid in mine]
    assert limit(count) == most
    assert [type(answer) for answer in answers] == [Quarantined] * most + [Capped] * (count - most)
    assert answers[most:] == [Capped(most, most)] * (count - most)
    assert quarantined(client, "box").keys() == set(mine[:most])
    assert all(mark.automatic for mark in quarantined(client, "box").values())


def test_what_a_person_quarantined_counts_and_a_person_has_no_limit(client):
    mine = CARDS[:4]
    for uuid in mine[:2]:
        quarantine(client, "box", uuid, "away", ANN)
    quarantine(client, "box", CARDS[9], "a card that is no longer here", ANN)
    assert quarantine_faulty(client, "box", mine[2], "Xid 79", ANN, mine) == Capped(2, 2)
    assert clear(client, "box", mine[0])
    assert isinstance(quarantine_faulty(client, "box", mine[2], "Xid 79", ANN, mine), Quarantined)
    for uuid in mine:
        quarantine(client, "box", uuid, "move", ANN)
    assert quarantined(client, "box").keys() == {*mine, CARDS[9]}


def test_what_is_found_unwell_again_keeps_its_mark(client):
    quarantine(client, "box", CARDS[0], "a person's reason", ANN)
    again = quarantine_faulty(client, "box", CARDS[0], "Xid 79", ANN, CARDS[:1])
    assert (again.reason, again.automatic) == ("a person's reason", False)


class Racing:
    """A client between whose look and change somebody else is faster, or whose changes have no answer."""

    def __init__(self, client, meanwhile, *, times=1, answers=True):
        self.client, self.meanwhile, self.times, self.answers = client, meanwhile, times, answers

    def record(self, name):
        return self.client.record(name)

    def put_record(self, name, value, version):
        if self.times:
            self.times -= 1
            self.meanwhile()
        found = self.client.put_record(name, value, version)
        if not self.answers:
            self.answers = True
            raise OutcomeUnknown("no answer")
        return found


def test_two_who_find_a_card_unwell_at_once_do_not_pass_the_limit(client):
    def other():
        quarantine_faulty(client, "box", CARDS[1], "Xid 48", ANN, CARDS[:2])

    assert quarantine_faulty(Racing(client, other), "box", CARDS[0], "Xid 79", ANN, CARDS[:2]) == Capped(1, 1)
    assert quarantined(client, "box").keys() == {CARDS[1]}


def test_a_change_of_somebody_else_is_kept(client):
    name = record_name("box")
    client.put_record(name, {"mib": {"GPU-x": 81000}, "v": 9}, 0)
    quarantine(
        Racing(client, lambda: quarantine(client, "box", CARDS[1], "theirs", ANN)),
        "box",
        CARDS[0],
        "ours",
        ANN,
    )
    assert quarantined(client, "box").keys() == {CARDS[0], CARDS[1]}
    value = client.record(name).value
    assert (value["mib"], value["v"]) == ({"GPU-x": 81000}, 9)


def test_a_change_without_an_answer_is_looked_at_again(client):
    racing = Racing(client, lambda: None, answers=False)
    assert quarantine(racing, "box", CARDS[0], "it hums", ANN).reason == "it hums"
    racing.answers = False
    assert clear(racing, "box", CARDS[0]).reason == "it hums"
    assert quarantined(client, "box") == {}


def test_of_two_that_clear_a_card_only_one_has_removed_the_mark(client):
    quarantine(client, "box", CARDS[0], "it hums", ANN)

    class Late:
        def record(self, name):
            return client.record(name)

        def put_record(self, name, value, version):
            clear(client, "box", CARDS[0])  # the other one was faster
            return client.put_record(name, value, version)

    assert clear(Late(), "box", CARDS[0]) is None


def test_a_record_that_others_always_change_is_given_up(client):
    class Never:
        def record(self, name):
            return None

        def put_record(self, name, value, version):
            raise Conflict(None)

    with pytest.raises(BackendUnavailable, match="changed by others again and again"):
        quarantine(Never(), "box", CARDS[0], "it hums", ANN)


def test_long_reasons_are_cut_before_a_card_goes_unmarked(client):
    for uuid in CARDS[:10]:
        quarantine(client, "box", uuid, "x" * 200, ANN)
    assert {len(mark.reason) for mark in quarantined(client, "box").values()} <= {200, 80}

    def everything():
        for uuid in CARDS:
            quarantine(client, "box", uuid, "x" * 200, ANN)

    with pytest.raises(ConfigError, match=r"no room for \d+ quarantined cards .*lockkit gpu clear UUID"):
        everything()


@pytest.mark.parametrize("mark", [1, "x", [], {}, {"why": 3, "at": "x"}])
def test_a_mark_that_cannot_be_read_quarantines_all_the_same(client, mark):
    client.put_record(record_name("box"), {"quarantine": {CARDS[0]: mark}}, 0)
    assert quarantined(client, "box")[CARDS[0]].uuid == CARDS[0]
    assert str(quarantined(client, "box")[CARDS[0]]).startswith("quarantined: ")


def test_a_quarantined_card_is_shown_as_such_with_its_faults_and_so_are_its_slices():
    card = Device("GPU-a", 0, used=0, processes=(), faults=("it hums",))
    mig = Device("MIG-b", 0, used=0, processes=(), parent="GPU-a")
    found = cards(Snapshot(0.0, (card, mig)), {"GPU-a": "quarantined by ann@box: noise"})
    assert [one.state for one in found] == ["quarantined", "quarantined"]
    assert found[0].reasons == ("quarantined by ann@box: noise", "it hums")


def test_a_fault_for_which_a_card_is_quarantined_is_told_once():
    card = Device("GPU-a", 0, used=0, processes=(), faults=("it must be reset", "it hums"))
    mark = Quarantined("GPU-a", "it must be reset", "ann@box", automatic=True)
    (shown,) = cards(Snapshot(0.0, (card,)), {"GPU-a": mark})
    assert shown.reasons == ("found faulty by ann@box: it must be reset", "it hums")


def test_the_mark_of_a_card_is_known_of_its_slices(client):
    card, mig = Device("GPU-a", 0, sliced=True), Device("MIG-b", 0, parent="GPU-a")
    mark = quarantine(client, "box", "GPU-a", "it hums", ANN)
    found = known(client, Homes("box"), (card, mig), client.inspect(record_name("box")))
    assert {uuid: one.quarantine for uuid, one in found.items()} == {"GPU-a": mark, "MIG-b": mark}


def test_nobody_gets_a_quarantined_card(client):
    uuids = [device.uuid for device in SimulatedProvider(2).snapshot().devices]
    host = simulated(os.uname().nodename)
    quarantine(client, host, uuids[0], "it hums", ANN)
    cards_of_host = lockkit.gpu.pool(client, simulate=2)
    with cards_of_host.acquire() as leases:
        assert leases.members == (uuids[1],)
    with pytest.raises(lockkit.AcquireTimeout, match=r"quarantined by ann@box: it hums"):
        cards_of_host.acquire(2, timeout=1)
    clear(client, host, uuids[0])
    cards_of_host.acquire(2).release()


# -- names of cards

HOST = [
    Device("GPU-54a033e8", 0),
    Device("MIG-54a033e8", 0, parent="GPU-54a033e8"),
    Device("GPU-54a0ffff", 1),
    Device("", 2, faults=("the card has fallen off the bus",)),
]


@pytest.mark.parametrize(
    "word, uuid",
    [
        ("GPU-54a033e8", "GPU-54a033e8"),
        ("gpu-54a03", "GPU-54a033e8"),
        ("0", "GPU-54a033e8"),
        ("1", "GPU-54a0ffff"),
        ("MIG-54a0", "MIG-54a033e8"),
        ("GPU-gone", "GPU-gone"),
    ],
)
def test_a_card_has_several_names(word, uuid):
    assert resolve(word, HOST, ["GPU-gone"]) == uuid


@pytest.mark.parametrize(
    "word, told",
    [
        ("3", r"there is no GPU '3' \(the GPUs are 0 to 2\)"),
        (
            "GPU-54a0",
            r"several GPUs begin with 'GPU-54a0' \(they are GPU 0 \(GPU-54a033e8\), GPU 1 \(GPU-54a0ffff\)\)",
        ),
        (
            "GPU-5",
            (
                r"there is no GPU 'GPU-5' \(name at least 8 characters of a UUID; "
                r"the GPUs are GPU 0 \(GPU-54a033e8\), "
            ),
        ),
        ("", "there is no GPU ''"),
        ("2", "GPU 2 does not give its UUID, so it cannot be named: the card has fallen off the bus "),
        ("\u0663", "there is no GPU"),
    ],
)
def test_an_unclear_name_lists_the_cards(word, told):
    with pytest.raises(ConfigError, match=told):
        resolve(word, HOST)


def test_an_index_that_cards_of_two_makers_have_names_neither():
    amd = HOST[0]._replace(uuid="AMD-11", parent=None)
    with pytest.raises(ConfigError, match=r"several GPUs have the index 0 \(name one by its UUID: .*AMD-11"):
        resolve("0", [*HOST, amd])


def test_slices_count_as_the_cards_that_they_are_of(client):
    mine = CARDS[:4]
    parents = {f"MIG-{card}-{number}": card for card in mine for number in range(7)}
    for uuid in parents:
        quarantine_faulty(client, "box", uuid, "Xid 79", ANN, mine, parents)
    assert quarantined(client, "box").keys() == {uuid for uuid in parents if parents[uuid] in mine[:2]}
    assert quarantine_faulty(client, "box", mine[2], "Xid 79", ANN, mine, parents) == Capped(2, 2)
    untold = [quarantine_faulty(client, "crate", uuid, "Xid 79", ANN, mine) for uuid in parents]
    assert [type(one) for one in untold[:3]] == [Quarantined, Quarantined, Capped]
    assert len(quarantined(client, "crate")) == limit(4)


def test_a_slice_that_a_person_quarantined_counts_as_its_card(client):
    mine = CARDS[:4]
    parents = {f"MIG-{card}": card for card in mine}
    for uuid in list(parents)[:2]:
        quarantine(client, "box", uuid, "being replaced", ANN)

    assert quarantine_faulty(client, "box", mine[2], "Xid 79", ANN, mine, parents) == Capped(2, 2)
    assert isinstance(quarantine_faulty(client, "box", mine[0], "Xid 79", ANN, mine, parents), Quarantined)


@pytest.mark.parametrize("at", [10**400, 1e300, 10**18, -1, True, "now"])
def test_a_mark_with_an_absurd_time_quarantines_its_card_and_keeps_no_other_from_being_marked(client, at):
    client.put_record(record_name("box"), {"quarantine": {CARDS[0]: {"why": "x", "at": at}}}, 0)
    assert quarantined(client, "box")[CARDS[0]].reason == "x"
    quarantine(client, "box", CARDS[1], "it hums", ANN)
    assert quarantined(client, "box").keys() == {*CARDS[:2]}
    assert clear(client, "box", CARDS[0]) is not None
    assert quarantined(client, "box").keys() == {CARDS[1]}


class ClearingsHeard:
    """A plugin that keeps the events about cards that were given back."""

    def __init__(self):
        self.events = []

    @lockkit.hookimpl
    def lockkit_event(self, event):
        if event.kind == "gpu_cleared":
            self.events.append(event)


def test_a_card_that_a_person_gives_back_is_an_event_with_the_reason_and_the_mark():
    heard = ClearingsHeard()
    with lockkit.connect(f"memory://{uuid4().hex}", plugins=[heard]) as client:
        mark = quarantine(client, "box", "GPU-1", "it hums", Owner("ann", "box", 1))
        assert give_back(client, "box", "GPU-1", "fan replaced", Owner("bob", "box", 2)) == mark
        assert quarantined(client, "box") == {}
        assert give_back(client, "box", "GPU-1", "once more", Owner("bob", "box", 2)) is None
        client.driver().dispatcher.flush(10)
    (event,) = heard.events
    assert event.reason == "fan replaced"
    assert dict(event.data) == {"uuid": "GPU-1", "by": "bob@box", "mark": "quarantined by ann@box: it hums"}
