"""The live line of a wait for cards, on facts alone."""

from __future__ import annotations

import time

import pytest

from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.card_denials import Seen
from lockkit.gpu.choosing import CardFacts, CardRequest
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.receipts import Receipt
from lockkit.gpu.waiting_row import waiting_row
from lockkit.lib.noted import RESERVED
from lockkit.notes.remarks import requesting
from lockkit.values.sizes import GIB

NOW = 1_700_000_000.0  # 14 November 2023, 22:13:20 UTC
CARD = Device("GPU-0", 0, "H100", 80 * GIB, 0, 0, 0, ())
BOB = DeviceProcess(5, "bob", "python", GIB)
ASKED = requesting("x", Owner("eve", "box", 8, program="train"), NOW, "x")[1]


def claim(user="ann", since=NOW - 60, weight=10, reason=None):
    note = {} if reason is None else {RESERVED: {"reason": reason}}
    owner = Owner(user, "box", 7, program="train")
    return ClaimInfo("x", "1" * 12, "HELD", owner, 1, 0, weight=weight, capacity=10, since=since, note=note)


def line(*cards, count=2, place="3rd", waited=80.0, kept=(), failed=None, **facts):
    devices = [
        one._replace(uuid=f"GPU-{at}", index=at) if not one.parent else one for at, one in enumerate(cards)
    ]
    known = {f"GPU-{at[1:]}": one for at, one in facts.items()}
    seen = Seen(
        CardRequest(count, min_free=GIB), Snapshot(NOW, tuple(devices)), known, failed or {}, kept=kept
    )
    return waiting_row(seen, count, place, waited, time.gmtime)


def test_a_row_has_the_time_the_place_and_each_card_in_a_few_words():
    told = line(CARD, CARD._replace(processes=(BOB,)), _0=CardFacts((claim(reason="nightly"),)))
    assert told == (
        "waiting 80 s for 2 GPUs: you are 3rd; "
        "GPU 0 held by ann since 22:12 (nightly), GPU 1 busy (unmanaged): bob's python"
    )


def test_cards_of_which_the_same_is_said_are_told_together():
    held = CardFacts((claim(),))
    told = line(CARD, CARD, CARD, CARD, _0=held, _1=held, _3=held, kept=["GPU-2"])
    assert told.endswith("you are 3rd; GPU 0+1+3 held by ann since 22:12, GPU 2 got")


@pytest.mark.parametrize(
    "card, facts, told",
    [
        (CARD, CardFacts(), "free"),
        (CARD, CardFacts((claim(since=NOW - 200_000),)), "held by ann since 12 Nov"),
        (
            CARD,
            CardFacts((claim()._replace(note={"max_hold": 3660}),)),
            "held by ann since 22:12 until 23:13",
        ),
        (CARD, CardFacts((claim()._replace(note={"max_hold": "x"}),)), "held by ann since 22:12"),
        (CARD, CardFacts((claim()._replace(process="stopped"),)), "held by ann since 22:12, stopped"),
        (CARD, CardFacts((claim()._replace(note=ASKED),)), "held by ann since 22:12, asked to release"),
        (CARD, CardFacts((claim(weight=4), claim("eve", weight=4))), "shared by ann and 1 more"),
        (
            CARD,
            CardFacts((claim(reason="a reason that is long and goes on"),)),
            "held by ann since 22:12 (a reason that is lon)",
        ),
        (CARD, CardFacts((claim("", reason=None),)), "held by train since 22:12"),
        (CARD, CardFacts((), None, "quarantined by ann: it hums"), "quarantined"),
        (CARD._replace(used=3 * GIB), CardFacts((), None, "", Receipt("GPU-0", "dirty", 3 * GIB)), "dirty"),
        (CARD._replace(used=3 * GIB), CardFacts(), "busy (unmanaged)"),
        (CARD._replace(processes=(DeviceProcess(None, None, None),)), CardFacts(), "busy (unmanaged)"),
        (
            CARD._replace(processes=(BOB, BOB, BOB._replace(user="eve"))),
            CardFacts(),
            "busy (unmanaged): bob's python and 1 more",
        ),
        (CARD._replace(faults=("Xid 79",)), CardFacts((claim(),)), "faulty"),
        (CARD._replace(used=None), CardFacts(), "unknown"),
        (CARD._replace(memory=2 * GIB, used=3 * GIB // 2, processes=()), CardFacts(), "busy (unmanaged)"),
        (CARD._replace(memory=3 * GIB // 2, used=GIB, processes=()), CardFacts(), "too full"),
    ],
)  # fmt: skip
def test_the_state_of_a_card_in_a_few_words(card, facts, told):
    assert line(card, count=1, _0=facts) == f"waiting 80 s for 1 GPU: you are 3rd; GPU 0 {told}"


def test_a_card_that_failed_a_check_and_a_slice_and_no_card_at_all():
    assert line(CARD, failed={"GPU-0": "2 is not 3"}).endswith("; GPU 0 not well")
    piece = CARD._replace(uuid="MIG-54a033e8-179f", parent="GPU-9")
    assert line(piece, count=1).endswith("; slice MIG-54a033e8 free")
    assert line(CARD, piece, CARD, count=1).endswith("; GPU 0+2+slice MIG-54a033e8 free")
    assert (
        waiting_row(None, 1, "1st", 3.0) == "waiting 3 s for 1 GPU: you are 1st; the GPUs cannot be seen now"
    )
    assert (
        waiting_row(Seen(CardRequest(), Snapshot(NOW, ()), {}), 1, "1st", 3.0)
        == "waiting 3 s for 1 GPU: you are 1st"
    )


def test_what_people_write_cannot_steer_a_terminal():
    assert "\x1b" not in line(CARD, _0=CardFacts((claim(reason="\x1b[2J"),)))
