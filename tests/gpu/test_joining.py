"""The state of a card, made of a device snapshot and of the claims and records in the store."""

from __future__ import annotations

import pytest

from lockkit.devices import Device, DeviceProcess, Snapshot
from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.joining import joined
from lockkit.gpu.known import Known
from lockkit.gpu.quarantine import Quarantined
from lockkit.gpu.receipts import Receipt
from lockkit.remarks import with_reason

GIB = 1 << 30
IDLE = Device("GPU-a", 0, "H100", 80 * GIB, GIB, 0, 0, ())
ANN = Owner(user="ann", host="box", pid=4711, program="train.py")
TRAIN = DeviceProcess(4711, "ann", "train.py", 70 * GIB)


def claim(weight, **more):
    return ClaimInfo("x", "0" * 12, "HELD", ANN, 1, 0, "semaphore", weight, 80896, since=700.0, **more)


WHOLE, SHARE = claim(80896), claim(8192, note=with_reason(None, "evaluation"))
ANNS, PART = (
    "ann@box pid 4711 (train.py), 5 min",
    "ann@box pid 4711 (train.py), 5 min, 8 GiB declared, for: evaluation",
)
MARK = Quarantined("GPU-a", "it hums", "bob@box")
DIRTY = Receipt("GPU-a", "dirty", 3 * GIB, by="ann@box")
LEFT = IDLE._replace(used=3 * GIB)
STRAY = "3 GiB in use by no process that is seen"


@pytest.mark.parametrize(
    "device, known, state, reasons",
    [
        (IDLE, Known(), "free", ()),
        (IDLE, Known((WHOLE,)), "held", (ANNS,)),
        (IDLE._replace(processes=(TRAIN,), used=70 * GIB), Known((WHOLE,)), "held", (ANNS,)),
        (IDLE, Known((SHARE,)), "shared", (PART,)),
        (IDLE, Known((SHARE, SHARE)), "shared", (PART, PART)),
        (IDLE, Known((WHOLE,), quarantine=MARK), "quarantined", ("quarantined by bob@box: it hums", ANNS)),
        (IDLE._replace(faults=("it smells",)), Known((WHOLE,)), "faulty", ("it smells", ANNS)),
        (LEFT, Known(), "busy", (STRAY,)),
        (LEFT, Known(receipt=DIRTY), "dirty", ("left dirty by ann@box with 3 GiB in use", STRAY)),
        (LEFT, Known(receipt=DIRTY._replace(outcome="clean")), "busy", (STRAY,)),
        (LEFT, Known((WHOLE,), DIRTY), "held", (ANNS,)),
        (IDLE, Known(receipt=DIRTY), "free", ()),
    ],
)  # fmt: skip
def test_a_card_has_one_state_for_driver_and_store(device, known, state, reasons):
    (card,) = joined(Snapshot(1000.0, (device,)), {"GPU-a": known})
    assert (card.state, card.reasons) == (state, reasons)
    assert joined(Snapshot(1000.0, (device,)), {})[0].state in ("free", "busy", "faulty")
