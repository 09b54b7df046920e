"""The table of ``lockkit status`` at all terminal widths, with members of pools and requests for them."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from lockkit.cli.lock_table import table_of
from lockkit.cli.looking import summary_words
from lockkit.facts import ClaimInfo, LockInfo, Owner
from lockkit.values import durations
from lockkit.views.looking import Look, summary

UUIDS = [f"GPU-{number}197690a-6bb1-5c8e-9d0f-0123456789ab" for number in range(8)]
GATE = "@pool/gpu-sim%2Fvm"


def held(name, user="ann", *, state="HELD", position=1, weight=1, capacity=1, note=None):
    kind = "semaphore" if capacity > 1 else "mutex"
    owner = Owner(user=user, host="vm", pid=4711 + position, program="train.py")
    return ClaimInfo(
        name,
        f"{position:012x}",
        state,
        owner,
        1795798672015477,
        position,
        kind=kind,
        weight=weight,
        capacity=capacity,
        since=1000.0 + position,
        note=note or {},
    )


CARDS = [
    LockInfo(name, (held(name, weight=8192 if number == 1 else 24064, capacity=24064),))
    for number, name in enumerate(f"{GATE}/{uuid}" for uuid in UUIDS)
]
WAITING = LockInfo(
    GATE,
    (
        held(GATE, "fay", note={"pool": {"count": 2}}),
        held(GATE, "eve", state="WAITING", position=2, note={"pool": {"count": 1}}),
    ),
)
ALL = [LockInfo("backup", (held("backup"),)), WAITING, *CARDS]


def rendered(width, locks=ALL, **more):
    console = Console(file=io.StringIO(), width=width)
    console.print(table_of(locks, width, **more))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 119, 120, 160])
def test_the_name_of_a_card_stands_in_one_row_with_the_beginning_of_its_uuid(width):
    rows = rendered(width).splitlines()
    assert max(map(len, rows)) <= width
    for uuid in UUIDS:
        assert sum(f"gpu-sim/vm: {uuid[:12]}" in row for row in rows) == 1
    assert not any("@pool" in row for row in rows)


def test_a_terminal_leaves_out_what_matters_less_before_it_breaks_a_holder():
    heads = {
        width: next(row for row in rendered(width).splitlines() if row.strip()).split()
        for width in (60, 80, 100, 220)
    }
    assert heads[60] == ["locks"]  # no room for a holder beside such a state
    assert heads[80] == ["name", "state", "holder", "waiters"]
    assert "since" in heads[100]
    assert {"claim", "deadline", "fence"} <= {*heads[220]}


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
@pytest.mark.parametrize("locks", [ALL, [LockInfo(name := "nightly/reports/of/all/shops", (held(name),))]])
def test_each_holder_has_its_age_and_its_claim_at_every_width(width, locks):
    told = rendered(width, locks)
    holders = [holder for info in locks for holder in info.holders]
    for holder in holders:
        assert holder.claim_id in told
    age = durations.show(time.time() - 1001.0)
    assert told.count(age) == len(holders)
    assert max(map(len, told.splitlines())) <= width


def test_two_cards_that_begin_alike_are_shown_whole():
    twins = [f"{GATE}/{UUIDS[0]}", f"{GATE}/{UUIDS[0][:-1]}f"]
    told = rendered(200, [LockInfo(name, (held(name),)) for name in twins])
    assert all(f"gpu-sim/vm: {name.rpartition('/')[2]}" in told for name in twins)


def test_a_program_reads_the_whole_name_and_all_columns():
    told = rendered(400, full=True)
    assert all(info.name in told for info in ALL)
    assert "held (8192 of 24064 MiB)" in told


def test_the_share_of_a_card_has_its_unit_and_a_whole_card_none():
    told = rendered(100)
    assert "held 8192/24064 MiB" in told
    assert "24064/24064" not in told


def test_the_gate_of_a_pool_is_shown_as_a_request_that_waits():
    for width in (100, 160):
        told = " ".join(rendered(width).split())
        assert "gpu-sim/vm: queue choosing" in told
    assert "first of those who wait, for 2 GPUs; fay@vm" in " ".join(rendered(220).split())


def test_a_request_at_the_gate_whose_process_is_stopped_is_shown_as_stopped():
    stopped = WAITING.claims[0]._replace(process="stopped")
    gate = LockInfo(GATE, (stopped,))
    assert "queue  stopped" in rendered(100, [gate])
    assert "choosing, stopped" in rendered(220, [gate])


def test_the_summary_counts_requests_instead_of_their_gate():
    beside = held(CARDS[0].name, "fay", state="WAITING", position=1)  # the same process waits at the gate
    for_one = held(CARDS[2].name, "joe", state="WAITING", position=9)
    busy = [*ALL[:2], *CARDS]
    busy[2] = CARDS[0]._replace(claims=(*CARDS[0].claims, beside))
    busy[4] = CARDS[2]._replace(claims=(*CARDS[2].claims, for_one))
    counted = summary(Look(busy, {}), 1061.0)
    assert (counted.locks, counted.held, counted.gates) == (9, 9, 1)
    told = summary_words(Look(busy, {}), 1061.0)
    assert told == "9 locks: 9 held; 3 requests wait, the longest for 60 s ('gpu-sim/vm')"
    assert summary_words(Look([WAITING], {}), 1061.0).startswith("0 locks; 2 requests wait, the longest")
