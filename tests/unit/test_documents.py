"""Stores of documents: the compare-and-swap loop, the stored form, and answers of other documents."""

from __future__ import annotations

import json
import logging
import time

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from backends.test_stores_damaged import JSONS
from lockkit.errors import BackendUnavailable, IncompatibleLayout
from lockkit.lib.noted import number
from lockkit.store.comparing import swapped
from lockkit.store.polling import Polling
from lockkit.store.rowqueue import RowQueue
from lockkit.store.rows import Row
from lockkit.store.spi import Busy, Granted, OpenOptions, Queued, Refused
from lockkit.store.untrusted import DAMAGED
from lockkit.testing.children import in_child
from lockkit.testing.claims import BUDGET, claim, queue, renew, take
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.processes import until
from support.harnesses.register import RegisterBackend, Registers


@pytest.fixture
def server():
    return Registers(ShiftedClock())


@pytest.fixture
def store(server):
    return RegisterBackend(server, OpenOptions(clock=server.clock))


def document(server, name="a"):
    return json.loads(server.cells[f"default/{name}"][0])


def put(server, value, name="a"):
    server.cells[f"default/{name}"] = json.dumps(value), server.cells.get(f"default/{name}", ("", 0))[1] + 1


# -- compare and swap


def test_a_change_is_tried_again_until_nobody_was_faster():
    answers = iter([None, None, ("done",)])

    assert swapped(lambda: next(answers), "it", time.monotonic() + 30.0) == "done"


def test_a_change_that_is_overtaken_all_the_time_is_refused_in_time():
    began = time.monotonic()

    with pytest.raises(Refused, match="other clients keep changing the queue") as told:
        swapped(lambda: None, "the queue", began + 0.3)

    assert told.value.retry
    assert time.monotonic() - began < 30  # and not for ever


def test_a_step_begins_again_with_what_the_faster_one_wrote(server, store):
    faster = [take]
    real = server.swap

    def overtaken(*asked):
        if faster:
            faster.pop()(RegisterBackend(server, OpenOptions(clock=server.clock)))
        return real(*asked)

    server.swap = overtaken

    assert store.acquire(claim(), True, BUDGET).position == 1, (
        "it queues behind the claim that came meanwhile"
    )


def test_a_try_in_vain_writes_nothing(server, store):
    take(store)
    before = server.cells["default/a"]

    assert isinstance(store.acquire(claim(wait=False), True, BUDGET), Busy)
    assert server.cells["default/a"] == before


# -- the stored form


def test_a_document_says_its_layout_and_keeps_what_a_newer_version_added(server, store):
    one, fence = take(store)
    stored = document(server)
    assert (stored["v"], stored["min_reader"]) == (1, 1)

    put(server, {**stored, "colour": "red"})
    assert renew(store, one, fence).state == "HELD"

    assert document(server)["colour"] == "red"


def test_a_document_for_newer_readers_is_refused(server, store):
    put(server, {"v": 9, "min_reader": 9})

    with pytest.raises(Refused) as told:
        store.acquire(claim(), True, BUDGET)

    assert isinstance(told.value.error, IncompatibleLayout)
    assert document(server) == {"v": 9, "min_reader": 9}


@pytest.mark.parametrize(
    "text",
    ["nonsense", "[]", '{"rows": 1}', '{"gone": 3}', '{"fence": "x"}', '{"gone": {"a": ["x", "late"]}}'],
)
def test_what_is_no_document_is_refused_and_left_alone(server, store, text):
    server.cells["default/a"] = text, 1

    with pytest.raises(Refused, match="no document of lockkit") as told:
        store.acquire(claim(), True, BUDGET)

    assert isinstance(told.value.error, BackendUnavailable)
    assert told.value.retry is False
    assert server.cells["default/a"] == (text, 1)


@given(st.sampled_from([*Row.__slots__, "row"]), JSONS)
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_a_bad_row_blocks_like_a_claim_and_is_kept_while_the_rest_goes_on(server, field, wrong):
    server.cells.clear()
    store = RegisterBackend(server, OpenOptions(clock=server.clock))
    one, fence = take(store)
    stored = document(server)
    (row,) = stored["rows"]
    bad = wrong if field == "row" else {**row, field: wrong}
    put(server, {**stored, "rows": [bad]})
    claims = store.inspect("a", BUDGET).claims
    assume(
        claims and DAMAGED in claims[0].evidence
    )  # else the value can be true: the claim has lapsed, or is as it was
    assume(field not in ("since", "renewed") or number(wrong) is None)  # after the year 9999: harms nothing

    (shown,) = claims
    assert (shown.state, shown.deadline) == ("HELD", None)
    behind = claim()
    assert isinstance(store.acquire(claim(wait=False), True, BUDGET), Busy)
    assert isinstance(store.acquire(behind, True, BUDGET), Queued)
    assert renew(store, one, fence).state == "LOST"
    assert json.dumps(document(server)["rows"][0]) == json.dumps(bad)
    assert store.names("", BUDGET) == ["a"]
    assert isinstance(store.acquire(claim(name="b"), True, BUDGET), Granted)
    assert store.put_record("a", {"n": 1}, 0, BUDGET).value == {"n": 1}

    assert store.evict("a", shown.claim_id, BUDGET).outcome == "MARKED"
    assert isinstance(store.acquire(behind, False, BUDGET), Queued)
    assert store.evict("a", shown.claim_id, BUDGET, now=True).outcome == "REMOVED"
    assert isinstance(store.acquire(behind, False, BUDGET), Granted)


def test_a_damaged_record_of_a_document_is_kept_until_it_is_replaced(server, store):
    one, fence = take(store)
    put(server, {**document(server), "record": [{"a": 1}, "x", 0]})
    assert renew(store, one, fence).state == "HELD"
    assert document(server)["record"] == [{"a": 1}, "x", 0]
    record = store.record("a", BUDGET)
    assert (record.damaged, record.version) == (True, 0)
    store.put_record("a", {"n": 1}, 0, BUDGET)
    assert document(server)["record"][:2] == [{"n": 1}, 1]
    assert len(document(server)["record"]) == 3


# -- answers


def test_the_time_to_ask_again_is_on_the_clients_clock(server, store):
    now = server.clock.now()
    take(store, ttl=30)

    answer = store.acquire(claim(), True, BUDGET)

    assert isinstance(answer, Queued)
    assert now + 30 <= answer.ask_again_at < now + 31


def test_of_a_batch_of_renewals_one_name_without_an_answer_costs_no_other(server, store):
    held = [take(store, name) for name in ("a", "b")]
    server.cells["default/a"] = "nonsense", 9

    assert [each.state for each in store.renew(held, BUDGET)] == ["UNKNOWN", "HELD"]
    with pytest.raises(Refused):
        store.renew(held[:1], BUDGET)


def test_names_are_those_that_have_claims(store):
    for name in ("b/1", "a", "b/2"):
        take(store, name)
    store.release(take(store, "b/3")[0], BUDGET)

    assert store.names("b/", BUDGET) == ["b/1", "b/2"]


def test_a_forked_child_is_refused(store):
    take(store)

    def child():
        with pytest.raises(Refused, match="not open in this process"):
            store.acquire(claim(), True, BUDGET)
        store.close()
        return "refused"

    assert in_child(child) == "refused"


# -- waking by looking


def test_a_waiter_is_woken_once_for_each_change_and_the_thread_ends_with_the_last(store):
    one, _ = take(store)
    waiter = queue(store)
    woken = []

    watch = store.watch("a", ("1",), lambda: woken.append(time.monotonic()), waiter)
    store.release(one, BUDGET)
    until(lambda: woken, "the waiter is woken")
    time.sleep(3 * store.look_every)
    watch.close()

    assert len(woken) == 1
    assert isinstance(store.acquire(waiter, False, BUDGET), Granted)
    until(lambda: not store._polling._thread.running, "the thread ends")


def test_a_look_that_fails_keeps_no_other_waiter_from_being_woken(caplog):
    woken = []

    def look(name, budget, known):
        if name == "bad":
            raise ValueError("of the store")
        return 1, RowQueue(name, None)

    polling = Polling(look, 0.01)
    with caplog.at_level(logging.ERROR):
        watches = [
            polling.watch(name, lambda queue: True, lambda name=name: woken.append(name))
            for name in ("bad", "good")
        ]
        until(lambda: woken, "the other waiter is woken")
    for watch in watches:
        watch.close()

    assert woken == ["good"]
    until(lambda: "the queue of 'bad' cannot be read" in caplog.text, "the error is logged")
