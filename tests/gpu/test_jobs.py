"""The rules of `lockkit run --gpu`, on facts alone: warnings, and the cards that a nested run may use."""

from __future__ import annotations

import pytest

from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.choosing import CardRequest
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.jobs import strangers, usable_inside
from lockkit.gpu.words import how_many
from lockkit.values.sizes import GIB

ANN = Owner("ann", "box", 7, program="train")
FIRST = Device("GPU-a", 0, "H100", 80 * GIB, 0, 0, 0, ())
SECOND = Device("GPU-b", 1, "A100", 40 * GIB, 0, 0, 0, ())
SLICED = Device("GPU-c", 2, "H100", 80 * GIB, sliced=True)
SLICE = Device("MIG-c", 2, "MIG 1g", 10 * GIB, 0, 0, None, (), parent="GPU-c")


def claim(weight=10, capacity=10, **more):
    return ClaimInfo("x", "1" * 12, "HELD", ANN, 1, 0, weight=weight, capacity=capacity, since=40.0, **more)


@pytest.mark.parametrize(
    "request_, held, good, why",
    [
        (CardRequest(), {"GPU-a": claim()}, ["GPU-a"], []),
        (CardRequest(), {"GPU-a": claim(5, 10)}, [], ["GPU 0: the outer hold has only 5 MiB of it"]),
        (CardRequest(memory=4 << 20), {"GPU-a": claim(5, 10)}, ["GPU-a"], []),
        (
            CardRequest(memory=6 << 20),
            {"GPU-a": claim(5, 10)},
            [],
            ["GPU 0: the outer hold has only 5 MiB of it"],
        ),
        (CardRequest(), {"GPU-a": claim(evicted=True)}, [], ["GPU 0: the outer hold was evicted"]),
        (CardRequest(model="A100"), {"GPU-a": claim(), "GPU-b": claim()}, ["GPU-b"], ["GPU 0: it is a H100"]),
        (CardRequest(), {"GPU-c": claim(), "MIG-c": claim()}, ["MIG-c"], []),
    ],
)
def test_a_job_inside_another_one_chooses_from_what_the_outer_one_holds(request_, held, good, why):
    devices, refused = usable_inside(request_, Snapshot(0.0, (FIRST, SECOND, SLICED, SLICE)), held)
    assert ([one.uuid for one in devices], list(refused)) == (good, why)


def test_only_other_persons_are_strangers():
    users = ("ann", "root", "bob", "1001", "33", "nobody", "of-the-directory", None)
    card = FIRST._replace(processes=tuple(DeviceProcess(5, user, "x") for user in users))
    uids = {"ann": 1000, "root": 0, "bob": 1001, "nobody": 65534}
    found = strangers(Snapshot(0.0, (card,)), "ann", uids.get)
    assert [one.split()[0] for one in found] == ["bob", "1001", "of-the-directory"]
    assert found[0] == "bob pid 5 (x), on GPU 0"
    assert (how_many(1), how_many(2)) == ("1 GPU", "2 GPUs")
