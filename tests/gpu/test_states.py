"""The state of a card, and why."""

from __future__ import annotations

import pytest

from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.states import STATES, STRAY, cards, summary

GIB = 1 << 30
IDLE = Device("GPU-a", 0, "H100", 80 * GIB, GIB, 0, 0, ())
BOB = DeviceProcess(4711, "bob", "jupyter", 12 * GIB)


@pytest.mark.parametrize(
    "device, state, reasons",
    [
        (IDLE, "free", ()),
        (IDLE._replace(used=STRAY), "free", ()),
        (IDLE._replace(used=STRAY + 1, tolerated=2 * GIB), "free", ()),
        (IDLE._replace(used=STRAY + 1), "busy", ("1 GiB in use by no process that is seen",)),
        (IDLE._replace(processes=(BOB,)), "busy", ("bob pid 4711 (jupyter), 12 GiB",)),
        (
            IDLE._replace(processes=(DeviceProcess(), DeviceProcess(7, memory=GIB))),
            "busy",
            ("unknown pid", "pid 7, 1 GiB"),
        ),
        (IDLE._replace(processes=None), "free", ()),
        (
            IDLE._replace(processes=None, used=3 * GIB),
            "busy",
            ("3 GiB in use by processes that cannot be told",),
        ),
        (IDLE._replace(processes=None, used=None), "unknown", ("its use cannot be told",)),
        (IDLE._replace(used=None), "unknown", ("its memory cannot be told",)),
        (
            IDLE._replace(processes=(BOB,), faults=("it hums", "it smells")),
            "faulty",
            ("it hums", "it smells"),
        ),
        (IDLE._replace(sliced=True, processes=(BOB,)), "sliced", ("programs can use only its slices",)),
    ],
)  # fmt: skip
def test_a_card_has_one_state_and_says_why(device, state, reasons):
    (card,) = cards(Snapshot(0.0, (device,)))
    assert (card.state, card.reasons) == (state, reasons)
    assert card.state in STATES


def test_a_name_from_outside_cannot_write_to_the_terminal():
    (card,) = cards(Snapshot(0.0, (IDLE._replace(processes=(DeviceProcess(1, "b\x1b[2J", "c\n"),)),)))
    assert card.reasons == (r"b\x1b[2J pid 1 (c\n)",)


def test_a_divided_card_counts_by_its_slices():
    parent = IDLE._replace(sliced=True)
    slices = [IDLE._replace(uuid=f"MIG-{number}", parent="GPU-a") for number in range(2)]
    busy = slices[1]._replace(processes=(BOB,))
    assert summary(cards(Snapshot(0.0, (parent, slices[0], busy)))) == "2 GPUs: 1 free, 1 busy (unmanaged)"
    assert summary(cards(Snapshot(0.0, (IDLE,)))) == "1 GPU: 1 free"
    assert summary(cards(Snapshot(0.0, (IDLE,))), 1) == "1 GPU: 1 free; 1 request waits"
    assert summary(cards(Snapshot(0.0, (IDLE,))), 2) == "1 GPU: 1 free; 2 requests wait"
    assert summary(cards(Snapshot(0.0, (parent,)))).startswith("no GPU can be used")


def test_what_is_free_is_what_is_neither_reserved_nor_used():
    assert IDLE._replace(used=GIB).free == 78 * GIB
    assert IDLE._replace(used=90 * GIB).free == 0
    assert (
        IDLE._replace(used=None).free
        is IDLE._replace(memory=None).free
        is IDLE._replace(memory=None).usable
        is None
    )
