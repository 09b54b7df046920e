"""A card's preflight, with a stand-in for torch: reasons to keep a card from one request, or from all."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import psutil
import pytest

from lockkit import aio, connect
from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.gpu import pool
from lockkit.gpu.aio import pool as aio_pool
from lockkit.gpu.devices import Device
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.preflight import Preflight, Verdict
from lockkit.gpu.quarantine import quarantined
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.hooks import hookimpl
from lockkit.testing.processes import until
from support.frameworks import FOLDER, Torch

HOST = os.uname().nodename
SIMULATED = simulated(HOST)
CARDS = [one.uuid for one in SimulatedProvider(4).snapshot().devices]
ONE = Device("GPU-1", 0, "H100")


@pytest.fixture
def torch(tmp_path, monkeypatch):
    made = Torch(tmp_path / "torch.json")
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path / "state"))  # which cards were had last
    for key, value in made.environ().items():
        monkeypatch.setenv(key, value)
    return made


def preflight(**limits):
    made = Preflight(sys.executable, **limits)
    made.probe()
    assert made.framework == "torch"
    return made


def test_a_card_that_computes_right_passes(torch):
    assert preflight().check(ONE) is None
    assert torch.computed() == ["GPU-1"]


@pytest.mark.parametrize(
    "does, verdict",
    [
        ("wrong", Verdict("it computes wrong results", faulty=True)),
        (
            "CUDA error: uncorrectable ECC error encountered",
            Verdict(
                "its preflight failed: RuntimeError: CUDA error: uncorrectable ECC error encountered",
                faulty=True,
            ),
        ),
        (
            "no memory",
            Verdict(
                "its preflight failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 64.00 MiB."
            ),
        ),
        (
            "CUDA error: no kernel image is available for execution on the device",
            Verdict(
                "its preflight failed: RuntimeError: CUDA error: "
                "no kernel image is available for execution on the device"
            ),
        ),
        ("absent", Verdict("its preflight could not be done: torch sees no card that it can use")),
        ("dies", Verdict("its preflight was ended (exit code 9)")),
    ],
)
def test_only_what_nothing_else_explains_makes_a_card_faulty(torch, does, verdict):
    torch.steer({"GPU-1": does})
    assert preflight().check(ONE) == verdict


def test_a_card_that_does_not_answer_is_faulty_and_its_child_is_gone(torch):
    torch.steer({"GPU-1": "hangs"})
    before = psutil.Process().children()
    assert preflight(computes=0.5).check(ONE) == Verdict("it did not compute within 0.5 s", faulty=True)
    assert psutil.Process().children() == before


def test_a_slow_start_of_cuda_makes_no_card_faulty(torch):
    torch.steer({"GPU-1": "starts slowly"})
    told = "torch and CUDA had not started within 0.5 s"
    assert preflight(starts=0.5, computes=0.1).check(ONE) == Verdict(told)


def test_a_request_that_ends_sooner_finds_no_card_faulty(torch):
    torch.steer({"GPU-1": "hangs"})
    checks = preflight(computes=3600.0)
    assert checks.check(ONE, until=time.monotonic() + 1.5) == Verdict("there was no time for its preflight")


def test_a_card_of_another_maker_is_refused(torch):
    assert preflight().check(ONE._replace(uuid="AMD-1")) == Verdict("a preflight is for NVIDIA's cards")


@pytest.mark.parametrize(
    "how, told",
    [("fails", "torch: ImportError: libcudart"), ("without CUDA", "torch is a build without CUDA")],
)
def test_a_framework_that_cannot_be_used_is_refused_with_what_to_install(torch, how, told):
    torch.steer({"import": how})
    with pytest.raises(ConfigError, match=f"{told}.*pip install torch.*--preflight-python"):
        Preflight(sys.executable).probe()
    with pytest.raises(ConfigError, match=r"/nowhere/python cannot be run.*--preflight-python"):
        Preflight("/nowhere/python").probe()


def test_cupy_does_where_there_is_no_torch(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER / "only_cupy"))
    checks = Preflight(sys.executable)
    checks.probe()
    assert checks.framework == "cupy"
    assert checks.check(ONE) is None
    assert checks.check(ONE._replace(uuid="GPU-wrong")) == Verdict("it computes wrong results", faulty=True)
    told = (
        "its preflight could not be done: RuntimeError: cudaErrorNoDevice: no CUDA-capable device is detected"
    )
    assert checks.check(ONE._replace(uuid="GPU-none")) == Verdict(told)


# -- in a request


class Alerts:
    def __init__(self):
        self.heard = []

    @hookimpl
    def lockkit_alert(self, alert):
        self.heard.append(alert)


@pytest.fixture
def client():
    with connect("memory:") as client:
        yield client


def test_a_faulty_card_is_quarantined_and_another_one_taken(torch, client):
    torch.steer({CARDS[0]: "wrong"})
    with pool(client, simulate=4).acquire(preflight=True) as leases:
        assert leases.members == (CARDS[1],)
    (mark,) = quarantined(client, SIMULATED).values()
    assert (mark.uuid, mark.automatic, mark.lasting) == (CARDS[0], True, True)
    assert mark.reason == "preflight: it computes wrong results"
    assert torch.computed() == CARDS[:2]


def test_a_card_without_memory_is_left_out_and_not_quarantined(torch, client):
    torch.steer({CARDS[0]: "no memory"})
    with pool(client, simulate=2).acquire(preflight=sys.executable) as leases:
        assert leases.members == (CARDS[1],)
    assert quarantined(client, SIMULATED) == {}


def test_at_most_half_of_the_cards_are_quarantined_and_a_person_is_told(torch):
    torch.steer({"*": "wrong"})
    alerts = Alerts()
    with connect("memory:", plugins=[alerts], request_timeout=60) as client:  # what all four may take
        with pytest.raises(AcquireTimeout, match="it is not quarantined, because 2 of its host are"):
            pool(client, simulate=4).acquire(preflight=True, timeout=0)
        until(lambda: len(alerts.heard) == 4)
        assert set(quarantined(client, SIMULATED)) == set(CARDS[:2])
    assert torch.computed() == CARDS  # none of them twice
    assert [(one.kind, one.data["uuid"]) for one in alerts.heard] == [
        *(("gpu_quarantined", card) for card in CARDS[:2]),
        *(("gpu_not_quarantined", card) for card in CARDS[2:]),
    ]


def test_without_being_asked_for_nothing_is_computed(torch, client):
    with pool(client, simulate=2).acquire():
        assert torch.computed() == []


def test_the_other_face_does_the_same(torch):
    async def main():
        async with (
            aio.connect("memory:") as client,
            aio_pool(client, simulate=4).acquire(preflight=True) as got,
        ):
            assert got.members == (CARDS[1],)

    torch.steer({CARDS[0]: "wrong"})
    asyncio.run(main())
