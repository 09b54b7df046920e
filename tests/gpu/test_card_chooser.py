"""The chooser of a request for cards: what it says when cards come and go."""

from __future__ import annotations

import pytest

from lockkit.errors import BackendUnavailable, DevicesUnavailable
from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.card_chooser import CardChooser
from lockkit.gpu.choosing import CardRequest
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.preflight import LONGEST
from lockkit.protocol.attempt import OUTAGE_LIMIT
from lockkit.store.spi import Refused
from lockkit.values.sizes import GIB

ONE, TWO = (Device(f"GPU-{n}", n, "H100", 80 * GIB, 0, 0, 0, ()) for n in (1, 2))
BOB = DeviceProcess(4711, "bob", "jupyter", 3 * GIB)
CLAIM = ClaimInfo("x", "c", "HELD", Owner(), 1, 0)


class Host:
    """A host whose cards the test says, one look after the other; the last look is repeated."""

    def __init__(self, *looks, request=None, holders=(), marks=None):
        self.looks = list(looks)
        self.slept, self.looked = 0.0, 0
        self.holders = holders
        self.chooser = CardChooser(
            request or CardRequest(),
            (ONE, TWO),
            self.look,
            lambda _: self.holders,
            self.sleep,
            lambda: marks or {},
        )

    def look(self):
        self.looked += 1
        seen = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if seen is None:
            raise DevicesUnavailable("the driver hangs")
        return Snapshot(1000.0, seen)

    def sleep(self, seconds):
        self.slept += seconds


def test_a_card_that_the_driver_does_not_show_for_a_while_does_not_end_the_request():
    choice = Host((TWO,), request=CardRequest(2)).chooser.choose(())
    assert (choice.order, choice.never) == (("GPU-2",), None)
    assert choice.refused == {"GPU-1": "the driver does not show it"}


@pytest.mark.parametrize("late", [ONE._replace(uuid="GPU-9"), ONE._replace(uuid="GPU-9", memory=None)])
def test_a_card_of_which_nothing_could_be_told_at_first_is_neither_chosen_nor_refused(late):
    # The capacity of such a card is not known, so the pool that the request goes to does not have it.
    choice = Host((ONE, TWO._replace(processes=(BOB,)), late)).chooser.choose(())
    assert (choice.order, set(choice.refused)) == (("GPU-1",), {"GPU-2"})


def test_a_decision_is_made_of_one_look():
    host = Host((ONE, TWO))
    for number in (1, 2):
        host.chooser.choose(())
        assert host.looked == number
    assert host.chooser.judge("GPU-1") is None
    assert host.looked == 3


def test_while_the_driver_does_not_answer_no_card_will_do():
    host = Host(None, (ONE, TWO))
    assert host.chooser.choose(("GPU-2",)).refused == {"GPU-1": "the driver hangs"}
    assert host.chooser.choose(()).order == ("GPU-1", "GPU-2")


def test_a_card_is_as_it_should_be_if_nobody_uses_it():
    assert Host((ONE, TWO)).chooser.judge("GPU-1") is None
    assert Host((TWO,)).chooser.judge("GPU-1") == "it is gone"
    assert Host(None).chooser.judge("GPU-1") == "the driver hangs"
    assert "bob" in Host((ONE._replace(processes=(BOB,)),)).chooser.judge("GPU-1")


def test_memory_may_drain_after_the_grant_as_long_as_the_request_allows():
    full = (ONE._replace(used=5 * GIB),)
    host = Host(full, full, (ONE,), request=CardRequest(settle=20.0))
    assert host.chooser.judge("GPU-1") is None
    assert host.slept > 0
    assert "5 GiB in use" in Host(full).chooser.judge("GPU-1")


@pytest.mark.parametrize("until, waited", [(None, 20.0), (1003.0, 2.9)])
def test_memory_drains_no_longer_than_the_request_has_time(until, waited):
    """So the reason is told in time, and no thread is left in the driver when the request has ended."""
    at = [1000.0]

    def sleep(seconds):
        at[0] += seconds

    full = Snapshot(1000.0, (ONE._replace(used=5 * GIB),))
    request = CardRequest(settle=20.0)
    chooser = CardChooser(request, (ONE,), lambda: full, lambda _: (), sleep, now=lambda: at[0])
    chooser.until = until

    assert "5 GiB in use" in chooser.judge("GPU-1")
    assert at[0] - 1000.0 == pytest.approx(waited)


def test_processes_of_those_who_share_a_card_are_no_strangers():
    busy = (ONE._replace(used=5 * GIB, processes=(BOB,)),)
    assert (
        Host(busy, request=CardRequest(memory=8 * GIB), holders=(CLAIM, CLAIM)).chooser.judge("GPU-1") is None
    )
    late = CLAIM._replace(state="OFFERED")  # as ZooKeeper shows the new holder at first
    assert (
        Host(busy, request=CardRequest(memory=8 * GIB), holders=(CLAIM, late)).chooser.judge("GPU-1") is None
    )
    assert (
        Host(busy, request=CardRequest(memory=8 * GIB), holders=(CLAIM,)).chooser.judge("GPU-1") is not None
    )
    told = Host(busy, request=CardRequest(memory=78 * GIB), holders=(CLAIM, CLAIM)).chooser.judge("GPU-1")
    assert told == "only 75 GiB of it is free"


def test_memory_of_a_holder_that_was_seen_may_drain():
    full = (ONE._replace(used=5 * GIB), TWO._replace(processes=(BOB,)))
    host = Host(full, request=CardRequest(settle=30.0), holders=(CLAIM,))
    host.chooser.choose(())
    host.holders = ()
    assert host.chooser.choose(()).order == ("GPU-1",)


def test_a_quarantined_card_will_not_do_and_neither_do_its_slices():
    marks = {"GPU-1": "quarantined by ann@box: it hums"}
    assert Host((ONE, TWO), marks=marks).chooser.choose(()).order == ("GPU-2",)
    assert Host((ONE, TWO), marks=marks).chooser.choose(()).refused == {
        "GPU-1": "quarantined by ann@box: it hums"
    }
    assert Host((ONE, TWO), marks=marks).chooser.judge("GPU-1") == "quarantined by ann@box: it hums"
    mig = TWO._replace(parent="GPU-1")
    assert Host((ONE, mig), marks=marks).chooser.choose(()).order == ()


def away(*_):
    raise BackendUnavailable("it restarts")


def test_a_store_that_is_away_for_a_while_leaves_the_request_its_place_and_its_choice():
    at = [0.0]
    answers = [lambda _: ()]

    def holders(uuid):
        return answers[0](uuid)

    chooser = CardChooser(
        CardRequest(),
        (ONE, TWO),
        lambda: Snapshot(1000.0, (ONE, TWO)),
        holders,
        now=lambda: at[0],
    )
    before = chooser.choose(())
    answers[0] = away
    assert chooser.choose(()) == before
    at[0] = 29.0
    assert chooser.choose(()) == before
    at[0] = 31.0
    with pytest.raises(BackendUnavailable, match="it restarts"):
        chooser.choose(())
    answers[0] = lambda _: ()
    assert chooser.choose(()) == before
    answers[0] = away
    assert chooser.choose(()) == before, "an outage counts from its own beginning"


def test_a_store_that_is_only_busy_is_waited_for_without_a_limit():
    at, works = [0.0], [True]

    def holders(_):
        if works[0]:
            return ()
        raise Refused(BackendUnavailable("others write"), busy=True).error

    chooser = CardChooser(
        CardRequest(), (ONE, TWO), lambda: Snapshot(1000.0, (ONE, TWO)), holders, now=lambda: at[0]
    )
    before = chooser.choose(())
    works[0] = False
    for at[0] in (0.0, OUTAGE_LIMIT + 1, 100 * OUTAGE_LIMIT):
        assert chooser.choose(()) == before


def test_a_store_that_is_away_at_first_offers_no_card_and_judges_none_well():
    chooser = CardChooser(CardRequest(), (ONE, TWO), lambda: Snapshot(1000.0, (ONE, TWO)), away, marks=away)
    choice = chooser.choose(())
    assert choice.order == ()
    assert choice.refused == dict.fromkeys(("GPU-1", "GPU-2"), "the store does not answer: it restarts")
    assert chooser.judge("GPU-1") == "the store does not answer: it restarts"


def test_a_card_that_fails_its_preflight_is_left_out_for_a_minute():
    at, told = [0.0], ["it computes wrong results"]
    chooser = CardChooser(
        CardRequest(settle=20.0),
        (ONE, TWO),
        lambda: Snapshot(1000.0, (ONE, TWO)),
        lambda _: (),
        now=lambda: at[0],
        preflight=lambda device, _: told[0] if device.uuid == "GPU-1" else None,
    )
    assert chooser.choose(()).order == ("GPU-1", "GPU-2")
    assert (chooser.judge("GPU-1"), chooser.judge("GPU-2")) == (told[0], None)
    choice = chooser.choose(("GPU-2",))
    assert (choice.order, choice.refused) == ((), {"GPU-1": told[0]})
    at[0] = 60.0
    assert chooser.choose(("GPU-2",)).order == ("GPU-1",)


def test_memory_that_drains_leaves_a_preflight_its_time():
    host = Host((ONE._replace(used=5 * GIB),), request=CardRequest(settle=20.0))
    at = [0.0]
    chooser = CardChooser(
        CardRequest(settle=20.0),
        (ONE,),
        host.look,
        lambda _: (),
        lambda seconds: at.__setitem__(0, at[0] + seconds),
        now=lambda: at[0],
        preflight=lambda *_: None,
    )
    assert "5 GiB in use" in chooser.judge("GPU-1")
    assert at[0] == 5.0
    assert at[0] + LONGEST < OUTAGE_LIMIT
