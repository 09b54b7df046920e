"""Parts of documents are made of facts by the names of their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from msgspec import Struct, defstruct, field

from lockkit.alerts.state import Silence
from lockkit.cli import parts as own
from lockkit.facts import ClaimInfo, Evicted, Finding, Keeper, LockInfo, Owner
from lockkit.gpu.devices import Device
from lockkit.observe.checks import Case
from lockkit.observe.past import PastHold, StoreKey
from lockkit.observe.recovery import Result
from lockkit.plugins.manager import PluginInfo
from lockkit.views import documents, parts
from lockkit.views.documents import plain
from lockkit.views.making import made_of
from lockkit.views.parts import OrNull, Time

NOON = 1_767_225_600.25
CLAIM = ClaimInfo("x", "0" * 12, "HELD", Owner("ann", "box", 7), 3, 0, since=NOON, ttl=30.0)
CASE = Case("gone", "tell", "x", "why")


class Inner(Struct):
    size_bytes: int


class Outer(Struct):
    at: Time
    at_seconds: float
    seen: OrNull[Time]
    seen_seconds: OrNull[float]
    hint: OrNull[str]
    raw: str | None
    key: str = field(name="store")
    inner: Inner | None
    each: Sequence[Inner]
    note: dict[str, object]


class Size(NamedTuple):
    size: int


class Thing(NamedTuple):
    at: float = NOON
    seen: float = 0.0
    hint: str = ""
    raw: str = ""
    key: str = "k"
    inner: Size | None = Size(1)
    each: tuple[Size, ...] = (Size(2), Size(3))
    note: object = ()


def test_a_fact_becomes_a_part():
    assert plain(made_of(Outer, Thing())) == {
        "at": "2026-01-01T00:00:00.250Z",
        "at_seconds": NOON,
        "seen": None,
        "seen_seconds": None,
        "hint": None,
        "raw": "",
        "store": "k",
        "inner": {"size_bytes": 1},
        "each": [{"size_bytes": 2}, {"size_bytes": 3}],
        "note": {},
    }


def test_what_is_not_empty_is_not_null():
    found = made_of(Outer, Thing(seen=NOON, hint="h"))
    assert (found.seen, found.seen_seconds, found.hint) == ("2026-01-01T00:00:00.250Z", NOON, "h")


def test_what_is_given_counts_before_what_the_facts_have_and_an_earlier_fact_before_a_later_one():
    found = made_of(Outer, Thing(hint="first"), Thing(hint="second"), at=0.0, inner=None, each=[Inner(9)])
    assert (found.at, found.at_seconds) == ("1970-01-01T00:00:00.000Z", 0.0)
    assert (found.hint, found.inner, found.each) == ("first", None, [Inner(9)])


def test_the_same_facts_with_other_names_given_are_another_plan():
    made_of(Outer, Thing(), raw="given")
    assert made_of(Outer, Thing(raw="fact")).raw == "fact"


def test_a_field_of_which_nothing_is_known_is_an_error():
    kind = defstruct("Kind", [("count", int)])  # a named tuple has a method of this name
    with pytest.raises(TypeError, match=r"Kind\.count is neither given nor in a fact"):
        made_of(kind, Owner())


def test_a_name_that_is_no_field_is_an_error():
    with pytest.raises(TypeError, match="Inner has no field for colour, weight"):
        made_of(Inner, size=1, weight=2, colour="red")


def test_a_claim_has_its_requests_under_its_own_name():
    asked = {"lockkit": {"asked": {"1": {"by": "bob", "reason": "now", "at": NOON}}}}
    claim = CLAIM._replace(note=asked, kept_by=(Keeper(8, "sh"),))
    result = Evicted("MARKED", NOON, claim)
    store = parts.Store("memory:", "default", "ns")
    found = plain(made_of(documents.Evict, result, store=store, name="x", claim_id="c", reason="", now=False))
    assert found["blocks_until_seconds"] == NOON
    assert found["claim"]["note"] == asked
    assert found["claim"]["kept_by"] == [{"pid": 8, "program": "sh"}]
    assert found["claim"]["release_requests"] == [
        {"name": "x", "by": "bob", "reason": "now", "at": "2026-01-01T00:00:00.250Z", "at_seconds": NOON}
    ]


def test_parts_that_are_more_than_their_fact_are_made_where_they_are_found():
    class Both(Struct):
        lock: parts.Lock
        holds: Sequence[parts.PastHold]

    hold = PastHold(StoreKey("redis://h", "ns"), "x", "0" * 12, 3, Owner(), NOON)
    found = plain(made_of(Both, lock=LockInfo("x", (CLAIM,)), holds=(hold,)))
    assert (found["lock"]["state"], found["lock"]["waiting"]) == ("held", 0)
    assert (found["holds"][0]["end"], found["holds"][0]["store"]["url"]) == ("held", "redis://h")


@pytest.mark.parametrize(
    "kind, facts, null",
    [
        (parts.Finding, [Finding("disk", "ok", "fine")], {"hint"}),
        (parts.ShownSilence, [Silence("1", "ann", NOON, NOON)], {"comment", "fingerprint"}),
        (own.Plugin, [PluginInfo("p")], {"dist", "version", "import_seconds", "error"}),
        (own.RecoveryCase, [CASE, Result(CASE)], {"claim", "tier", "outcome"}),
        (own.GpuName, [Device("GPU-1", 0)], {"name"}),
    ],
)
def test_empty_texts_are_null_where_the_published_document_has_null(kind, facts, null):
    assert {name for name, value in plain(made_of(kind, *facts)).items() if value is None} == null
