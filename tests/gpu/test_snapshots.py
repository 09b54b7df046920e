"""One look at the devices of several providers, of which none can hide those of another."""

from __future__ import annotations

import threading

import pytest

from lockkit.config import config
from lockkit.errors import ConfigError, DevicesUnavailable
from lockkit.gpu.devices import BasicProvider, Device, DeviceProcess, Snapshot
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.gpu.snapshots import Looking, let_go, look, providers
from lockkit.gpu.words import WITHOUT
from lockkit.plugins import PluginManager


class Cards(BasicProvider):
    def __init__(self, name, *devices, error=None, answer=None):
        self.name, self.devices, self.error, self.answer = name, devices, error, answer

    def snapshot(self):
        if self.error is not None:
            raise self.error
        return self.answer or Snapshot(0.0, self.devices, (f"of {self.name}",))


def test_the_devices_of_all_providers_are_shown():
    found = look([Cards("a", Device("A", 0), Device("", 1)), Cards("b", Device("B", 0))])
    assert [one.uuid for one in found.devices] == ["A", "B", ""]
    assert found.remarks == ("of a", "of b")
    assert found.device("B").index == 0
    assert found.device("") is found.device("C") is None


@pytest.mark.parametrize(
    "bad, told",
    [
        (Cards("bad", error=DevicesUnavailable("no driver", hint="install it")), r"no driver \(install it\)"),
        (Cards("bad", error=ValueError("what")), "the device provider bad raised ValueError: what"),
        (Cards("bad", error=SystemExit(3)), "the device provider bad raised SystemExit: 3"),
        (Cards("bad", answer=[1]), "the device provider bad returned list, not a Snapshot"),
    ],
)
def test_a_provider_that_fails_hides_no_other_and_is_named(bad, told):
    found = look([bad, Cards("good", Device("A", 0))])
    assert [one.uuid for one in found.devices] == ["A"]
    with pytest.raises(DevicesUnavailable, match=told) as alone:
        look([bad])
    assert found.remarks[-1] == str(alone.value)


def test_each_of_several_providers_that_fail_is_named_with_its_reason():
    amd = Cards("amd", error=DevicesUnavailable("no amdsmi", hint="install ROCm"))
    nvidia = Cards("nvidia", error=DevicesUnavailable("no pynvml", hint=f"pip install it; {WITHOUT}"))

    with pytest.raises(DevicesUnavailable) as caught:
        look([amd, nvidia, Cards("broken", answer=1)])

    broken = "the device provider broken returned int, not a Snapshot (see: lockkit plugins)"
    assert caught.value.message == f"no amdsmi (install ROCm); no pynvml (pip install it); {broken}"
    assert caught.value.hint == WITHOUT


def test_a_driver_that_hangs_is_left_out_after_a_while():
    gate = threading.Event()

    class Hanging(Cards):
        def snapshot(self):
            gate.wait()
            return Snapshot(0.0)

    try:
        found = look([Hanging("stuck"), Cards("good", Device("A", 0))], Looking(0.1))
        assert [one.uuid for one in found.devices] == ["A"]
        assert "the driver of the device provider stuck has not answered within 0.1 s" in found.remarks[-1]
    finally:
        gate.set()


def test_a_driver_is_let_go_of_within_a_bound_and_not_while_a_look_at_it_hangs():
    gate = threading.Event()

    class Slow(Cards):
        closed = 0

        def snapshot(self):
            gate.wait()
            return Snapshot(0.0)

        def close(self):
            self.closed += 1
            gate.wait()

    class Broken(Cards):
        def close(self):
            raise ValueError("what")

    looked, idle = Slow("looked"), Slow("idle")
    try:
        with pytest.raises(DevicesUnavailable):
            look([looked], Looking(0.1))
        let_go([looked, idle, Broken("broken")], patience=0.1)
        assert (looked.closed, idle.closed) == (0, 1)
    finally:
        gate.set()


def test_of_two_providers_with_one_device_the_first_counts():
    found = look([Cards("a", Device("A", 0, "first")), Cards("b", Device("A", 7, "second"))])
    assert [one.name for one in found.devices] == ["first"]
    assert "b has the device A of another provider, too" in found.remarks


def test_without_any_device_the_error_says_what_to_do():
    with pytest.raises(
        DevicesUnavailable, match=r"there is no GPU on this host .*LOCKKIT_GPU_SIMULATE=8 .*--gpu-sim 8 "
    ):
        look([Cards("a")])
    with pytest.raises(DevicesUnavailable, match="remove gpu from disable_plugins"):
        look([])


def test_a_simulation_replaces_the_devices_of_all_plugins(tmp_path):
    plugins = PluginManager([Offer()], discover=tuple)
    plain, two = (
        config.load(
            environ={"LOCKKIT_STATE_DIR": str(tmp_path), **more},
            cwd=tmp_path,
            etc=tmp_path / "none",
            home=tmp_path,
        )
        for more in ({}, {"LOCKKIT_GPU_SIMULATE": "2"})
    )
    assert [one.name for one in providers(plain, plugins)][:1] == ["theirs"]
    assert [one.name for one in providers(two, plugins)] == ["simulated"]
    assert len(look(providers(two, plugins)).devices) == 2
    assert len(look(providers(plain, plugins, simulate=3)).devices) == 3
    assert [one.name for one in providers(two, plugins, simulate=0)][:1] == ["theirs"]
    with pytest.raises(ConfigError, match=r"gpu\.simulate must be a whole number from 0 to 64"):
        providers(plain, plugins, simulate=65)
    (tmp_path / "simulated-gpus.json").write_text('{"0": {"faults": ["it hums"]}}')
    assert look(providers(two, plugins)).devices[0].faults == ("it hums",)


class Offer:
    from lockkit.hooks import hookimpl

    @hookimpl
    def lockkit_devices(self):
        return [Cards("theirs", Device("T", 0))]


def test_a_provider_that_has_not_returned_is_not_asked_again_until_it_has():
    go = threading.Event()
    asked = []

    class Hung(SimulatedProvider):
        def snapshot(self):
            asked.append(threading.current_thread())
            go.wait(30)
            return super().snapshot()

    hung = Hung(1)
    for _ in range(3):
        with pytest.raises(DevicesUnavailable, match="has not answered within"):
            look([hung], Looking(0.05))
    assert len(asked) == 1
    go.set()
    asked[0].join(30)
    assert len(look([hung]).devices) == 1


MPS = DeviceProcess(1, "root", "nvidia-cuda-mps-server", 30 << 20)
XORG = DeviceProcess(2, "root", "Xorg", 1 << 30)
BOB = DeviceProcess(3, "bob", "train.py", 1 << 30)


@pytest.mark.parametrize(
    "processes, left",
    [
        ((MPS,), ()),
        ((MPS, XORG, BOB), (BOB,)),
        ((MPS, XORG._replace(memory=2 << 30)), None),  # together more than is tolerated
        ((MPS._replace(memory=None),), None),  # which may be more
        ((BOB._replace(program=None),), None),
        (None, None),
    ],
)
def test_programs_on_the_list_are_left_out_while_they_use_little(processes, left):
    how = Looking(ignore=("Xorg", "nvidia-cuda-mps-server"), tolerated=2 << 30)
    (seen,) = look([Cards("a", Device("A", 0, processes=processes))], how).devices
    assert seen.processes == (processes if left is None else left)
    assert seen.tolerated == 2 << 30


def test_a_card_without_memory_is_faulty():
    (seen,) = look([Cards("a", Device("A", 0, memory=0, used=0, processes=()))]).devices
    assert seen.faults == ("the driver says that it has no memory at all",)
