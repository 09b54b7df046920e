"""The small pieces of lockkit.store that several stores share. (Rules of rows: test_store_rules.py.)"""

from __future__ import annotations

import logging

import pytest

from lockkit.errors import BackendUnavailable, ConfigError, IncompatibleLayout, PermissionDenied
from lockkit.facts import Finding, Owner
from lockkit.store.comparing import ROUNDS, annotate
from lockkit.store.dangers import warnings_of
from lockkit.store.handshakes import handshake_error
from lockkit.store.layouts import check_reader
from lockkit.store.notes import note_of, patched
from lockkit.store.owners import about, about_in, layout_in, owner_of, packed_owner
from lockkit.store.perlock import per_lock
from lockkit.store.queue import agreed, check_capacity, in_the_way
from lockkit.store.rows import Row
from lockkit.store.spi import NOTE_LIMIT, Refused, Terms
from lockkit.store.tombstones import LASTING, Tombstones
from lockkit.store.waking import wake_up

# -- tombstones


def test_a_token_that_was_given_up_is_known_with_its_reason_for_as_long_as_a_copy_may_come():
    gone = Tombstones()
    gone.bury("a", 100.0, "evicted")

    assert gone.why("a", 100.0 + LASTING - 0.1) == "evicted"
    assert gone.why("a", 100.0 + LASTING) is None
    assert gone.why("b", 100.0) is None


def test_what_is_due_is_forgotten_by_whoever_buries_next():
    gone = Tombstones()
    for at in range(10):
        gone.bury(str(at), float(at))
    gone.bury("new", 5.0 + LASTING)

    assert list(gone.stones) == ["6", "7", "8", "9", "new"]


def test_only_so_many_are_remembered_and_the_oldest_go_first():
    gone = Tombstones(lasting=float("inf"), most=3)
    for token in "abcde":
        gone.bury(token, 0.0)

    assert list(gone.stones) == ["c", "d", "e"]
    assert gone.why("e", 1e9) == "late"


def test_one_that_is_given_up_twice_is_remembered_from_the_second_time_on():
    gone = Tombstones()
    gone.bury("a", 0.0)
    gone.bury("a", 30.0)

    assert gone.why("a", LASTING + 29.0) == "late"


# -- what is derived from terms


def test_what_a_lock_has_in_common_is_worked_out_once_for_each_lock():
    worked_out = []
    known = per_lock(lambda terms: worked_out.append(terms) or len(worked_out))
    one, equal = Terms("a"), Terms("a")

    assert [known(one), known(one), known(equal), known(one)] == [1, 1, 2, 1]


def test_the_cache_does_not_grow_beyond_its_most_and_never_confuses_two_locks():
    worked_out = []
    known = per_lock(lambda terms: worked_out.append(terms) or terms.name, most=4)
    locks = [Terms(str(at)) for at in range(100)]

    assert [known(terms) for terms in locks] == [terms.name for terms in locks]
    assert known(locks[0]) == "0"
    assert worked_out.count(locks[0]) == 2, "it was forgotten in between"
    assert known(locks[0]) == "0"
    assert len(worked_out) == 101


# -- owners


def test_an_owner_is_stored_without_what_is_empty_and_read_without_what_is_unknown():
    owner = Owner(user="ann", host="box", pid=7)

    assert packed_owner(owner) == {"user": "ann", "host": "box", "pid": 7}
    assert owner_of({**packed_owner(owner), "added_later": 1}) == owner
    assert owner_of(None) == owner_of("garbage") == Owner()


def test_the_kind_and_owner_of_a_claim_are_stored_as_text_that_any_store_can_keep():
    owner = Owner(user="zoë", program="broken\udc80name\0")
    text = about(Terms("a", kind="semaphore", owner=owner))

    assert text.isascii()
    assert "\0" not in text
    assert about_in(text) == ("semaphore", owner, 1)


def test_the_locks_of_one_client_share_the_text_of_their_owner():
    owner = Owner(user="ann")

    assert about(Terms("a", owner=owner)) is about(Terms("b", owner=owner))
    assert about(Terms("a", owner=owner)) != about(Terms("a", owner=owner, kind="semaphore"))


@pytest.mark.parametrize("text", ["", "garbage", "[]", "null"])
def test_a_kind_and_owner_that_cannot_be_read_are_unknown(text):
    assert about_in(text) == (None, Owner(), 0)


@pytest.mark.parametrize(
    "stored, layout", [({"v": 3}, 3), ({}, 0), ({"v": "1"}, 0), ({"v": True}, 0), ({"v": None}, 0)]
)
def test_the_layout_of_stored_data_is_a_number_or_unknown(stored, layout):
    assert layout_in(stored) == layout


@pytest.mark.parametrize("text, note", [(None, {}), ("", {}), ('{"a": 1}', {"a": 1}), ("[1]", {})])
def test_a_stored_note_is_an_object_or_empty(text, note):
    assert note_of(text) == note


def test_what_a_wake_up_callback_raises_is_logged_and_not_raised(caplog):
    wake_up(lambda: 1 / 0, logging.getLogger("lockkit.test"))

    assert "a wake-up callback failed" in caplog.text


def test_what_a_newer_version_wrote_for_newer_readers_is_refused_and_says_who_wrote_it():
    check_reader({"min_reader": 1}, 1, "a claim")
    check_reader({}, 1, "a claim")
    newer = {"min_reader": 2, "owner": packed_owner(Owner(host="box", version="9.1"))}

    with pytest.raises(
        Refused, match=r"a claim was written by lockkit 9\.1 on box and needs layout version 2"
    ) as told:
        check_reader(newer, 1, "a claim")
    assert isinstance(told.value.error, IncompatibleLayout)
    assert not told.value.retry
    for garbage in ("1", 1.5, True):
        with pytest.raises(Refused):
            check_reader({"min_reader": garbage}, 1, "a claim")


# -- the queue


def rows(*states, weight=1, capacity=1):
    return [
        Row(str(at), Terms("a"), at, weight, capacity, 30.0, 0.0, 0.0, 0.0, state)
        for at, state in enumerate(states)
    ]


def ways(queue, place):
    return in_the_way(queue, [row.holding for row in queue], place)


def test_the_next_in_line_is_told_its_blockers_and_that_their_deadlines_count_for_it():
    assert ways(rows("HELD", "WAITING", "WAITING"), 1) == ([0], True)
    assert ways(rows("HELD", "WAITING", "WAITING"), 2) == ([1], False)


def test_a_claim_that_fits_waits_for_holders_that_a_resize_left_outside():
    assert ways(rows("WAITING", "HELD", "LINGERING", "WAITING"), 0) == ([1, 2], True)


@pytest.mark.parametrize("capacity", [0, -1, True, 1.0, "1", None])
def test_what_is_no_capacity_is_refused(capacity):
    with pytest.raises(ConfigError, match="whole number of at least 1"):
        check_capacity(capacity, "a")


def test_a_store_may_have_a_largest_capacity():
    check_capacity(5, "a", 5)
    with pytest.raises(ConfigError, match="from 1 to 5, not 6"):
        check_capacity(6, "a", 5)


def test_a_waiter_is_told_the_capacity_it_stated_unless_the_head_differs():
    assert agreed(3, 2, 2) == 3
    assert agreed(3, 3, 2) == 2


# -- change by compare


def test_an_annotation_is_tried_again_while_others_are_faster():
    answers = iter([None, None, True])

    assert annotate("a", {"x": 1}, lambda: next(answers))
    assert not annotate("a", {"x": 1}, lambda: False)


def test_an_annotation_gives_up_when_others_are_faster_each_time():
    tries = []
    with pytest.raises(Refused, match="keep changing the note of 'a'"):
        annotate("a", {"x": 1}, lambda: tries.append(1))

    assert len(tries) == ROUNDS


def test_neither_a_patch_nor_the_note_it_makes_may_be_too_long():
    with pytest.raises(ConfigError):
        annotate("a", {"x": "y" * NOTE_LIMIT}, lambda: pytest.fail("asked the store"))
    with pytest.raises(ConfigError):
        patched({"x": "y" * (NOTE_LIMIT - 20)}, {"z": "y" * 20})
    assert patched({"a": 1, "b": 2}, {"a": None, "c": 3}) == {"b": 2, "c": 3}


# -- TLS handshakes that failed

UNVERIFIED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "


@pytest.mark.parametrize(
    "text, kind, hint",
    [
        (
            UNVERIFIED + "Hostname mismatch, certificate is not valid for 'a'",
            BackendUnavailable,
            "write the host name",
        ),
        (UNVERIFIED + "certificate has expired", BackendUnavailable, "new certificate"),
        (UNVERIFIED + "self-signed certificate", BackendUnavailable, "write ?ca_file=PATH"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]", PermissionDenied, "cert_file=PATH&key_file=PATH"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA]", PermissionDenied, "signed by whom it trusts"),
        ("[SSL: WRONG_VERSION_NUMBER]", ConfigError, "without TLS; or check the port"),
    ],
)
def test_a_handshake_that_would_fail_again_is_told_with_what_to_change(text, kind, hint):
    error = handshake_error(
        text, "host:1", ca_file=False, signer="signed by whom it trusts", plain="without TLS"
    )

    assert type(error) is kind
    assert "host:1" in error.message
    assert hint in error.hint


def test_an_authority_that_was_named_is_what_to_look_at():
    error = handshake_error(UNVERIFIED + "self-signed", "host:1", ca_file=True, signer="", plain="")

    assert error.hint.startswith("?ca_file= names an authority")


def test_a_handshake_that_may_pass_another_time_has_no_such_error():
    assert (
        handshake_error("EOF occurred in violation of protocol", "a:1", ca_file=False, signer="", plain="")
        is None
    )


FINDINGS = (
    Finding("server", "ok", "it answers"),
    Finding("version", "warning", "it is old", "upgrade it"),
    Finding("role", "error", "it is a replica", "name the primary"),
)


def test_findings_are_warnings_unless_all_is_well():
    assert warnings_of(FINDINGS, strict=False, who="h:1") == [
        "h:1: it is old (upgrade it)",
        "h:1: it is a replica (name the primary)",
    ]


def test_strict_refuses_an_error_and_warns_of_the_rest():
    assert warnings_of(FINDINGS[:2], strict=True) == ["it is old (upgrade it)"]
    with pytest.raises(Refused, match=r"^it is a replica; strict refuses that") as caught:
        warnings_of(FINDINGS, strict=True)
    assert not caught.value.retry
    assert caught.value.error.hint == "name the primary"
