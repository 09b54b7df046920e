"""Receipts: how a card was left, for the next holder."""

from __future__ import annotations

from uuid import uuid4

import pytest

import lockkit
from lockkit.errors import OutcomeUnknown
from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.devices import Device, DeviceProcess
from lockkit.gpu.judging import SLACK, Receipt, judged
from lockkit.gpu.quarantine import quarantine
from lockkit.gpu.receipts import (
    last,
    packed,
    put,
    put_back,
    receipt,
    take_over,
    unpacked,
)
from lockkit.notes.members import pool_name
from lockkit.values.identity import this_process

GIB = 1 << 30
IDLE = Device("GPU-a", 0, "H100", 80 * GIB, GIB, 0, 0, ())
MINE, THEIRS, NOBODY = (DeviceProcess(pid, "bob", "train.py", 3 * GIB) for pid in (7, 8, None))


@pytest.fixture
def client():
    with lockkit.connect(f"memory://{uuid4().hex}") as made:
        yield made


def drawn(memory, *, seen=False):
    """A card with a desktop that is ignored; ``seen``: it uses more than an ignored program may."""
    desktop = DeviceProcess(77, "ann", "Xorg", memory)
    return IDLE._replace(used=memory, ignored=(desktop,), processes=(desktop,) if seen else ())


@pytest.mark.parametrize(
    "before, after, outcome, leftover",
    [
        (IDLE, IDLE, "clean", 0),
        (IDLE, IDLE._replace(used=SLACK), "clean", SLACK),
        (IDLE, IDLE._replace(used=SLACK + 1), "dirty", SLACK + 1),
        (IDLE._replace(used=3 * GIB), IDLE._replace(used=3 * GIB), "clean", 0),
        (IDLE._replace(used=3 * GIB), IDLE, "clean", 0),
        (None, IDLE._replace(used=GIB), "dirty", GIB),
        (IDLE, IDLE._replace(processes=(MINE,)), "dirty", 0),
        (
            IDLE._replace(processes=(THEIRS,)),
            IDLE._replace(processes=(THEIRS._replace(memory=GIB),)),
            "clean",
            0,
        ),
        (IDLE, IDLE._replace(processes=(NOBODY,)), "dirty", 0),
        (IDLE._replace(processes=(NOBODY,)), IDLE._replace(processes=(NOBODY,)), "clean", 0),
        (IDLE._replace(used=4 * GIB, processes=(THEIRS,)), IDLE._replace(used=4 * GIB), "dirty", 3 * GIB),
        (IDLE._replace(used=4 * GIB, processes=(THEIRS,)), IDLE, "clean", 0),
        (IDLE, None, "unknown", None),
        (IDLE, IDLE._replace(used=None), "unknown", None),
        (IDLE, IDLE._replace(processes=None), "unknown", 0),
        (
            IDLE._replace(used=GIB, processes=None),
            IDLE._replace(used=GIB + SLACK, processes=None),
            "unknown",
            SLACK,
        ),
        (IDLE, IDLE._replace(used=SLACK + 1, processes=None), "dirty", SLACK + 1),
        (IDLE, IDLE._replace(used=None, processes=None), "unknown", None),
        (IDLE, IDLE._replace(faults=("it hums",)), "unknown", None),
        (drawn(GIB // 4), drawn(GIB // 2), "clean", 0),
        (drawn(GIB // 4), drawn(4 * GIB, seen=True), "clean", 0),
        (drawn(GIB // 4), drawn(GIB // 2)._replace(used=2 * GIB), "dirty", 2 * GIB - GIB // 2),
    ],
)
def test_a_whole_card_is_judged_by_what_it_was_at_the_grant(before, after, outcome, leftover):
    assert judged("GPU-a", before, after)[1:3] == (outcome, leftover)


@pytest.mark.parametrize(
    "processes, outcome, leftover",
    [
        ((), "clean", 0),
        ((THEIRS,), "clean", 0),
        ((THEIRS, MINE), "dirty", 3 * GIB),
        ((THEIRS, NOBODY), "unknown", None),
        (None, "unknown", None),
    ],
)
def test_a_share_is_judged_by_its_own_processes_alone(processes, outcome, leftover):
    after = IDLE._replace(used=50 * GIB, processes=processes)
    assert judged("GPU-a", IDLE, after, mine={7})[1:3] == (outcome, leftover)


@pytest.mark.parametrize("mine", [None, {7}], ids=["whole", "share"])
def test_a_receipt_without_a_list_of_processes_says_so(mine):
    report = judged("GPU-a", IDLE, IDLE._replace(processes=None), mine)
    assert (report.outcome, report.errors) == ("unknown", ("the driver does not list processes",))


def test_a_dirty_card_says_how_much_and_whose():
    report = judged("GPU-a", IDLE, IDLE._replace(used=3 * GIB, processes=(MINE,)))._replace(by="ann@box")
    assert str(report) == "left dirty by ann@box with 3 GiB in use: bob pid 7 (train.py), 3 GiB"
    assert str(Receipt("GPU-a", "clean")) == "left clean"
    assert str(Receipt("GPU-a", "unknown", by="ann@box")) == "left in an unknown state by ann@box"


FULL = Receipt("GPU-a", "dirty", GIB, ("bob pid 7",), "0123456789ab", 5, "ann@box", 1000.0, ("no torch",))


def test_a_receipt_is_kept_for_the_next_holder(client):
    assert receipt(client, "box", "GPU-a") is None
    assert put(client, "box", FULL)
    assert receipt(client, "box", "GPU-a") == FULL
    assert receipt(client, "crate", "GPU-a") is None
    assert put(client, "box", FULL._replace(fence=6, outcome="clean"))
    assert receipt(client, "box", "GPU-a").outcome == "clean"


def test_two_sharers_are_both_told_where_the_driver_does_not_say_how_much_is_in_use(client):
    unknown = IDLE._replace(used=None)
    for number, pid in ((1, "bob pid 7"), (2, "ann pid 8")):
        mine = claim(number)
        report = Receipt("GPU-a", "dirty", GIB, (pid,), mine.claim_id, mine.fence)
        assert put(client, "box", report, after=unknown, whole=False)
    kept = receipt(client, "box", "GPU-a")
    assert (kept.leftover, set(kept.left_by)) == (2 * GIB, {"bob pid 7", "ann pid 8"})


def test_a_receipt_that_comes_late_does_not_replace_a_later_one(client):
    put(client, "box", FULL)
    assert not put(client, "box", FULL._replace(fence=4, outcome="clean"))
    assert receipt(client, "box", "GPU-a") == FULL
    assert put(client, "box", FULL)


def test_a_receipt_leaves_all_else_in_the_record_as_it_is(client):
    name = pool_name("gpu/box", "GPU-a")
    client.put_record(name, {"capacity": 81000, "v": 9}, 0)
    put(client, "box", FULL)
    value = client.record(name).value
    assert (value["capacity"], value["v"]) == (81000, 9)
    quarantine(client, "box", "GPU-a", "it hums", this_process())
    assert receipt(client, "box", "GPU-a") == FULL


def test_a_long_receipt_is_cut():
    words = tuple("x" * 1000 for _ in range(50))
    value = packed(FULL._replace(left_by=words, errors=words, by="y" * 1000))
    assert len(str(value)) < 1500
    assert unpacked("GPU-a", value).left_by == ("x" * 120,) * 3


@pytest.mark.parametrize(
    "character", ["\N{FIRE}", "\x01", '"', "\udc80"], ids=["4 bytes", "escape", "quote", "no text"]
)
def test_a_receipt_fits_into_its_record_whatever_characters_it_has(client, character):
    sharers = [claim(number) for number in range(1, 30)]
    text = character * 1000
    owner = sharers[0].owner._replace(user=text, host=text)
    for number, one in enumerate(sharers):
        take(client, one._replace(owner=owner), *sharers[:number])
    mine = sharers[-1]
    report = Receipt("GPU-a", "dirty", 2**50, (text,) * 3, mine.claim_id, mine.fence, text, 1e9, (text,) * 3)
    assert put(client, "box", report, whole=False)
    kept = receipt(client, "box", "GPU-a")
    assert (kept.outcome, kept.leftover, len(kept.left_by), len(kept.errors)) == ("dirty", 2**50, 3, 3)


@pytest.mark.parametrize(
    "stored",
    [1, "x", [], {}, {"outcome": "spotless"}, {"outcome": 1, "leftover": -1, "fence": True, "left_by": 3}],
)
def test_a_receipt_that_cannot_be_read_says_that_nothing_is_known(stored):
    assert unpacked("GPU-a", stored) == Receipt("GPU-a", "unknown")


def claim(number, **more):
    return ClaimInfo("x", f"{number:012}", "HELD", Owner("bob", "box", 7), number, 0, since=2000.0, **more)


def take(client, mine, *sharers):
    return take_over(client, "box", "GPU-a", {one.claim_id for one in (mine, *sharers)}, mine)


def leave(client, mine, outcome="clean"):
    return put(client, "box", Receipt("GPU-a", outcome, 0, (), mine.claim_id, mine.fence, "bob@box", 3000.0))


def test_the_next_holder_gets_the_receipt_of_the_last_one(client):
    first, second, third = map(claim, (1, 2, 3))
    assert take(client, first) is None
    assert leave(client, first)
    assert take(client, second).claim_id == first.claim_id
    assert leave(client, second, "dirty")
    assert last(client, "box", "GPU-a", ()).outcome == "dirty"
    assert take(client, third).outcome == "dirty"


def test_a_holder_that_was_killed_leaves_the_card_in_an_unknown_state_whatever_an_older_receipt_says(client):
    first, killed, third, fourth = map(claim, (1, 2, 3, 4))
    take(client, first)
    leave(client, first)
    take(client, killed)
    assert last(client, "box", "GPU-a", {killed.claim_id}).outcome == "clean"  # of the holder before
    assert last(client, "box", "GPU-a", ()).outcome == "unknown"
    told = take(client, third)
    assert (told.outcome, told.claim_id, told.fence, told.at) == ("unknown", killed.claim_id, 2, 2000.0)
    assert str(told) == "left in an unknown state by bob@box"
    leave(client, third)
    assert take(client, fourth).outcome == "clean"


def test_an_unknown_outcome_of_the_note_of_a_grant_is_resolved(client):
    class Deaf:
        """Records whose first write is done, and not answered."""

        told = False
        record = client.record

        def put_record(self, *what):
            written = client.put_record(*what)
            if not self.told:
                self.told = True
                raise OutcomeUnknown("no answer")
            return written

    first, second = claim(1), claim(2)
    take(client, first)
    told = take(Deaf(), second)
    assert (told.outcome, told.claim_id) == ("unknown", first.claim_id)
    assert client.record(pool_name("gpu/box", "GPU-a")).value["taken"][0]["claim"] == second.claim_id


def test_one_of_several_sharers_that_was_killed_is_told_of_also_after_another_has_left_its_own(client):
    first, second, third = map(claim, (1, 2, 3))
    take(client, first)
    take(client, second, first)
    leave(client, second)
    told = take(client, third)
    assert (told.outcome, told.claim_id, told.fence) == ("unknown", first.claim_id, 2)


def test_a_grant_that_was_not_used_leaves_no_doubt(client):
    first, unused = claim(1), claim(2)
    take(client, first)
    leave(client, first)
    take(client, unused)
    put_back(client, "box", "GPU-a", unused.claim_id)
    put_back(client, "box", "GPU-a", unused.claim_id)
    assert last(client, "box", "GPU-a", ()).outcome == "clean"


def test_very_many_sharers_leave_room_in_the_record(client):
    sharers = [claim(number) for number in range(1, 60)]
    for number, one in enumerate(sharers):
        take(client, one, *sharers[:number])
    assert len(client.record(pool_name("gpu/box", "GPU-a")).value["taken"]) == 24


@pytest.mark.parametrize("stored", [1, "x", {}, [1], [{}], [{"claim": 1, "fence": "2"}]])
def test_a_note_of_a_grant_that_cannot_be_read_says_that_nothing_is_known(client, stored):
    client.put_record(pool_name("gpu/box", "GPU-a"), {"taken": stored}, 0)
    assert last(client, "box", "GPU-a", ()).outcome == "unknown"
    assert take(client, claim(1)).outcome == "unknown"


@pytest.mark.parametrize("wrong", [10**400, 1e300, -1, [10**400]])
@pytest.mark.parametrize("key", ["at", "leftover", "fence"])
def test_an_absurd_number_in_a_record_counts_as_unknown(client, key, wrong):
    name = pool_name("gpu/box", "GPU-a")
    client.put_record(name, {"receipt": {"outcome": "dirty", key: wrong}}, 0)
    known = last(client, "box", "GPU-a", ())
    assert (known.outcome, known.at, known.leftover, known.fence) == ("dirty", 0, None, 0)
    client.put_record(name, {"taken": [{"claim": [wrong], key: wrong}]}, 1)
    known = last(client, "box", "GPU-a", {"another"})
    assert (known.outcome, known.at, known.fence) == ("unknown", 0, 0)
    put(client, "box", Receipt("GPU-a", "clean", 0, claim_id="me", fence=1))


FULLER = IDLE._replace(used=6 * GIB)


def shared(client, mine, outcome, after=FULLER):
    report = Receipt("GPU-a", outcome, 0, (), mine.claim_id, mine.fence, "bob@box", 3000.0)
    return put(client, "box", report, before=IDLE, after=after, whole=False)


def told(client):
    return last(client, "box", "GPU-a", ()).outcome


@pytest.mark.parametrize(
    "first, then", [("clean", "dirty"), ("dirty", "clean"), ("unknown", "clean"), ("dirty", "unknown")]
)
@pytest.mark.parametrize("newer_leaves_first", [True, False])
def test_of_two_sharers_the_worse_receipt_stays_whoever_leaves_last(client, first, then, newer_leaves_first):
    older, newer = claim(1), claim(2)
    take(client, older)
    take(client, newer, older)
    one, two = (newer, older) if newer_leaves_first else (older, newer)
    shared(client, one, first)
    shared(client, two, then)
    assert told(client) == ("dirty" if "dirty" in (first, then) else "unknown")
    assert "taken" not in client.record(pool_name("gpu/box", "GPU-a")).value


@pytest.mark.parametrize("silent", [False, True], ids=["answered", "no answer"])
def test_two_sharers_who_both_leave_memory_are_both_told_of(client, monkeypatch, silent):
    ann, bob = claim(1), claim(2)
    take(client, ann)
    take(client, bob, ann)
    after = FULLER._replace(used=9 * GIB)
    first = Receipt("GPU-a", "dirty", 3 * GIB, ("ann pid 7", "ann pid 8"), ann.claim_id, ann.fence, "ann@box")
    second = Receipt(
        "GPU-a", "dirty", 2 * GIB, ("bob pid 9", "bob pid 10"), bob.claim_id, bob.fence, "bob@box"
    )
    put(client, "box", first, before=IDLE, after=after, whole=False)
    if silent:
        write = client.put_record

        def lose(*what):
            write(*what)
            monkeypatch.undo()
            raise OutcomeUnknown("no answer")

        monkeypatch.setattr(client, "put_record", lose)
    assert put(client, "box", second, before=IDLE, after=after, whole=False)
    found = take(client, claim(3))
    assert (found.claim_id, found.leftover, found.by) == (bob.claim_id, 5 * GIB, "bob@box, ann@box")
    assert found.left_by == ("bob pid 9", "ann pid 7", "bob pid 10")
    assert str(found).startswith("left dirty by bob@box, ann@box with 5 GiB in use: bob pid 9; ann pid 7")


def test_sharers_have_not_left_more_than_is_in_use(client):
    one, two = claim(1), claim(2)
    take(client, one)
    take(client, two, one)
    for mine in (one, two):
        report = Receipt("GPU-a", "dirty", 5 * GIB, (), mine.claim_id, mine.fence, "bob@box")
        put(client, "box", report, before=IDLE, after=FULLER, whole=False)
    found = receipt(client, "box", "GPU-a")
    assert (found.leftover, found.by) == (6 * GIB, "bob@box")


@pytest.mark.parametrize(
    "after, outcome",
    [
        (IDLE, "clean"),
        (FULLER, "dirty"),
        (IDLE._replace(processes=(THEIRS,)), "dirty"),
        (IDLE._replace(processes=None), "dirty"),
        (None, "dirty"),
    ],
)
def test_a_share_that_is_left_clean_ends_the_doubt_once_the_card_is_seen_empty(client, after, outcome):
    older, newer = claim(1), claim(2)
    take(client, older)
    take(client, newer, older)
    shared(client, newer, "dirty")
    shared(client, older, "clean", after)
    assert told(client) == outcome


@pytest.mark.parametrize(
    "before, after, outcome, leftover",
    [
        (FULLER, FULLER, "dirty", 6 * GIB),
        (FULLER, FULLER._replace(used=8 * GIB), "dirty", 8 * GIB),
        (FULLER, FULLER._replace(used=2 * GIB), "dirty", 2 * GIB),
        (FULLER, IDLE, "clean", 0),
        (IDLE, IDLE, "clean", 0),
        (FULLER._replace(processes=(THEIRS,)), FULLER._replace(processes=(THEIRS,)), "clean", 0),
        (FULLER, None, "unknown", None),
    ],
)
def test_what_an_earlier_holder_left_stays_told_as_long_as_it_is_seen(
    client, before, after, outcome, leftover
):
    put(client, "box", FULL)
    mine = claim(9)
    take(client, mine)
    report = judged("GPU-a", before, after)._replace(claim_id=mine.claim_id, fence=mine.fence)
    put(client, "box", report, before=before, after=after)
    found = receipt(client, "box", "GPU-a")
    assert (found.claim_id, found.outcome, found.leftover) == (mine.claim_id, outcome, leftover)


def test_memory_that_a_program_without_a_lock_had_at_the_grant_is_not_put_on_an_earlier_holder(client):
    put(client, "box", FULL._replace(outcome="clean"))
    report = judged("GPU-a", FULLER, FULLER)._replace(fence=9)
    put(client, "box", report, before=FULLER, after=FULLER)
    assert told(client) == "clean"


def test_a_forged_fence_does_not_outlive_the_receipts_of_later_holders(client):
    first, second = claim(5), claim(6)
    put(client, "box", FULL._replace(outcome="clean", fence=9 * 10**18))
    assert take(client, first).fence == first.fence
    put(client, "box", FULL._replace(outcome="clean", fence=9 * 10**18))  # forged once more, during the hold
    assert leave(client, first, "dirty")
    assert take(client, second).outcome == "dirty"


def test_sharers_with_long_names_leave_room_in_the_record_for_a_long_receipt(client):
    put(client, "box", FULL._replace(left_by=("x" * 120,) * 3, errors=("x" * 120,) * 3))
    sharers = [claim(number) for number in range(6, 30)]
    sharers = [one._replace(owner=one.owner._replace(host="h" * 64)) for one in sharers]
    for number, one in enumerate(sharers):
        take(client, one, *sharers[:number])
    noted = client.record(pool_name("gpu/box", "GPU-a")).value["taken"]
    assert noted[-1]["claim"] == sharers[-1].claim_id
    assert 10 < len(noted) < 24
