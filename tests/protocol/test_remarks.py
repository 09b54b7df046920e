"""Progress by ``beat``, and requests to release: when the heartbeat writes and reads them, at what cost."""

from __future__ import annotations

import pytest

from lockkit.errors import BackendUnavailable, ConfigError, NotHeld
from lockkit.facts import Capabilities, ClaimInfo, LockInfo, Owner, Progress, ReleaseRequest
from lockkit.lib.noted import progress_in, reason_in, requests_in
from lockkit.notes.asked import Asked as Heard
from lockkit.notes.asked import each_once
from lockkit.notes.remarks import askable, gone, progress, requesting, telling
from lockkit.protocol.beating import Beats
from lockkit.protocol.effects import Annotate, Asked, Renew
from lockkit.protocol.hold import Hold
from lockkit.store.notes import merged
from lockkit.store.spi import Claim, Refused, Renewal, Terms, Unknown

ANN = Owner(user="ann", host="box", pid=1)


@pytest.fixture
def beats(clock):
    return Beats(clock.now, lambda: 0.0, 6.0, 2.0, lambda _: None)


def held(beats, clock, name, ttl=30.0):
    hold = Hold(Claim(name.rjust(32, "0"), Terms(name, ttl)), 7, clock.now(), Capabilities("process"))
    beats.hold(hold)
    return hold


def a_beat(driven, beats, clock, requests=None):
    """One heartbeat of a store that answers everything; the notes that it wrote."""
    clock.forward(10.0)
    run, wrote = driven(beats.beating()), []
    while not run.done:
        if isinstance(run.effect, Renew):
            run.answer([Renewal("HELD", clock.now(), requests) for _ in run.effect.beats])
        elif isinstance(run.effect, Annotate):
            wrote.append(run.effect)
            run.answer(True)
        else:
            run.answer()
    return wrote


def test_the_last_of_many_beats_is_written_once_after_a_renewal(driven, beats, clock):
    hold = held(beats, clock, "a")
    assert a_beat(driven, beats, clock) == []
    for done in (0.1, 0.2, 0.3):
        beats.tell(hold.claim.token, Progress(done))

    (wrote,) = a_beat(driven, beats, clock)
    assert (wrote.name, wrote.claim_id) == ("a", hold.claim_id)
    assert progress_in(wrote.patch).done == 0.3
    assert a_beat(driven, beats, clock) == []


def test_a_hold_costs_at_most_one_note_for_each_renewal_and_none_if_nothing_new_was_told(
    driven, beats, clock
):
    busy, quiet = held(beats, clock, "busy"), held(beats, clock, "quiet")
    beats.tell(quiet.claim.token, Progress(0.5))
    written = []
    for renewal in range(12):
        for number in range(5 * (renewal % 2)):
            beats.tell(busy.claim.token, Progress(number / 5))
        written.append([each.name for each in a_beat(driven, beats, clock)])

    assert written == [["quiet"], ["busy"], *[[], ["busy"]] * 5]


@pytest.mark.parametrize("kind", [Refused, Unknown])
def test_a_request_that_fails_is_made_again_after_the_next_renewal_and_the_rest_with_it(
    driven, beats, clock, kind
):
    for name in "ab":
        beats.tell(held(beats, clock, name).claim.token, Progress(0.5))
    clock.forward(10.0)
    run = driven(beats.beating())
    run.answer([Renewal("HELD", clock.now())] * 2)
    assert isinstance(run.effect, Annotate)
    run.fail(kind(BackendUnavailable("down")))
    assert run.done

    assert [each.name for each in a_beat(driven, beats, clock)] == ["a", "b"]


def test_a_note_without_room_is_given_up(driven, beats, clock):
    beats.tell(held(beats, clock, "a").claim.token, Progress(0.5))
    clock.forward(10.0)
    run = driven(beats.beating())
    run.answer([Renewal("HELD", clock.now())])
    run.fail(ConfigError("full"))
    assert run.done

    assert a_beat(driven, beats, clock) == []


def test_what_is_told_takes_no_time_that_a_renewal_needs(driven, beats, clock):
    """A hold of 1 s beside holds of 30 s: writing their notes takes at most a quarter of its time left."""
    short = held(beats, clock, "short", ttl=1.0)
    for number in range(5):
        beats.tell(held(beats, clock, f"n{number}").claim.token, Progress(0.5))
    clock.forward(0.4)
    for member in beats.members.values():
        member.next = clock.now()  # all of them are due
    run, wrote = driven(beats.beating()), 0
    while not run.done:
        if isinstance(run.effect, Renew):
            run.answer([Renewal("HELD", clock.now()) for _ in run.effect.beats])
            continue
        assert isinstance(run.effect, Annotate)
        assert run.effect.budget <= (short.expires - clock.now()) / 4.0
        wrote += 1
        clock.forward(0.1)
        run.answer(True)

    assert 0 < wrote < 5
    assert short.valid(clock.now())


def test_what_a_released_hold_told_is_forgotten(driven, beats, clock):
    hold = held(beats, clock, "a")
    beats.tell(hold.claim.token, Progress(0.5))
    beats.withdraw(hold.claim.token)
    beats.tell(hold.claim.token, Progress(0.6))
    held(beats, clock, "b")

    assert a_beat(driven, beats, clock) == []
    assert not beats.untold


def test_each_request_is_told_once_however_often_a_renewal_brings_it(driven, beats, clock):
    hold = held(beats, clock, "a")
    first, patch = requesting("please", ANN, 5.0)
    told = []
    for _ in range(3):
        clock.forward(10.0)
        run = driven(beats.beating())
        run.answer([Renewal("HELD", clock.now(), patch)])
        while not run.done:
            told.append(run.effect)
            run.answer()

    assert told == [Asked(hold, [first])]


# -- the requests of a hold


def test_several_askers_and_reasons_stand_side_by_side_and_the_same_again_is_renewed():
    bob = ANN._replace(user="bob")
    note: dict[str, object] = {"theirs": 1}
    for reason, owner, at in (
        ("a", ANN, 1.0),
        ("a", bob, 2.0),
        ("b", ANN, 3.0),
        ("a", ANN._replace(pid=2), 4.0),
    ):
        note = merged(note, requesting(reason, owner, at)[1])

    found = list(requests_in(note).values())
    assert [(one.by.partition("@")[0], one.reason, one.at) for one in found] == [
        ("bob", "a", 2.0),
        ("ann", "b", 3.0),
        ("ann", "a", 4.0),
    ]
    assert note["theirs"] == 1


def test_a_request_that_is_renewed_is_heard_again():
    heard, rings = Heard(), []
    heard.alarms = (lambda: rings.append(1),)
    first, patch = requesting("a", ANN, 1.0)
    again, later = requesting("a", ANN, 2.0)

    assert heard.heard({}) == []
    assert not heard.event.is_set()
    assert heard.heard(patch) == [first]
    assert heard.heard(patch) == []
    assert heard.heard(later) == [again]
    assert heard.event.is_set()
    assert rings == [1, 1]


def test_a_callback_is_called_once_for_each_request_though_two_threads_call_it():
    calls = []
    call = each_once(calls.append)
    one, two = ReleaseRequest("ann", "a", 1.0), ReleaseRequest("ann", "a", 2.0)
    for request in (one, one, two, one):
        call(request)

    assert calls == [one, two]


# -- notes that others have written


@pytest.mark.parametrize(
    "note",
    [
        {},
        {"lockkit": None},
        {"lockkit": "x"},
        {"lockkit": {"reason": 7, "progress": [], "asked": "x"}},
        {"lockkit": {"asked": {"k": 7}, "progress": 1}},
    ],
)
def test_a_note_that_is_not_as_lockkit_writes_it_says_nothing(note):
    assert (reason_in(note), progress_in(note), dict(requests_in(note))) == ("", None, {})


def test_values_of_a_wrong_type_count_as_missing():
    note = {
        "lockkit": {
            "progress": {"done": True, "message": 7, "at": "x"},
            "asked": {"k": {"by": 1, "at": None}},
        }
    }

    assert progress_in(note) == Progress(None, "", 0.0)
    assert list(requests_in(note).values()) == [ReleaseRequest("somebody", "", 0.0)]


# -- words


def test_news_for_people():
    assert str(Progress(0.4, "epoch 4/10")) == "40 %, epoch 4/10"
    assert str(Progress(None, "epoch\x1b[2J")) == r"epoch\x1b[2J"
    assert str(ReleaseRequest("ann@box", "a\nb")) == r"ann@box: a\nb"


def test_news_that_leaves_something_out_removes_what_was_told_before():
    note = merged({}, telling(progress(0.4, "first", 1.0)))
    note = merged(note, telling(progress(0.5, None, 2.0)))

    assert note == {"lockkit": {"progress": {"done": 0.5, "at": 2.0}}}


def queue(*states):
    claims = [
        ClaimInfo(
            f"a{number}",
            f"{number:012x}",
            state,
            ANN,
            number,
            number,
            evicted=state == "HELD" and number == 9,
        )
        for number, state in enumerate(states)
    ]
    return LockInfo("a", tuple(claims))


def test_only_a_claim_that_holds_can_be_asked_and_the_error_names_those_that_do():
    info = queue("HELD", "HELD", "HELD", "HELD", "WAITING", "LINGERING")

    assert askable(info, f"{1:012x}").claim_id == f"{1:012x}"
    with pytest.raises(
        NotHeld, match=r"only waits.*000000000000 \(ann@box pid 1\), 000000000001 .* and 1 more"
    ):
        askable(info, f"{4:012x}")
    with pytest.raises(NotHeld, match="has ended already"):
        askable(info, f"{5:012x}")
    with pytest.raises(NotHeld, match="has no claim 00000000000c"):
        askable(info, f"{12:012x}")
    with pytest.raises(NotHeld, match="has ended already"):
        askable(LockInfo("a", (info.claims[0]._replace(evicted=True),)), f"{0:012x}")
    assert "nobody holds it now" in str(gone(LockInfo("a"), "0" * 12))


def test_an_absurd_number_in_a_note_counts_as_missing():
    told = {"progress": {"done": 10**400, "at": 10**400}, "asked": {"k": {"by": "bob", "at": 1e300}}}
    assert progress_in({"lockkit": told}) == Progress(None, "", 0.0)
    assert [one.at for one in requests_in({"lockkit": told}).values()] == [0.0]


def test_news_of_another_program_are_as_short_and_plain_as_those_of_lockkit():
    """A program of another version, or a person with a client of the store, writes what it likes."""
    note = {
        "lockkit": {
            "reason": "x" * 4000,
            "progress": {"done": 7, "message": "50 %\u202e\x1b[2J\n" + "y" * 4000, "at": 1.0},
            "asked": {"k": {"by": "eve\n" + "z" * 4000, "reason": "now\x07", "at": 2.0}},
        }
    }
    told, (request,) = progress_in(note), requests_in(note).values()

    assert told.done is None, "no share"
    for text in (reason_in(note), told.message, request.by, request.reason):
        assert text.isprintable()
        assert 0 < len(text) <= 200
    assert (reason_in(note)[:3], reason_in(note)[-1]) == ("xxx", "…")
