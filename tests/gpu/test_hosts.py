"""The name of the pool of a host's cards, on the host itself and in its containers."""

from __future__ import annotations

import os

import pytest

import lockkit
import lockkit.gpu
from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.plugins import PluginManager
from lockkit.values import containers


@pytest.fixture(autouse=True)
def of_a_driver(monkeypatch, tmp_path):
    """A host whose driver knows one card, by the same UUID everywhere."""
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("LOCKKIT_GPU_HOST", raising=False)
    monkeypatch.setattr(PluginManager, "devices", lambda _self: (SimulatedProvider(1),))


@pytest.fixture
def inside(monkeypatch):
    """Have this process be in a container."""
    monkeypatch.setattr(containers, "detect", lambda *_args, **_how: containers.Container("Docker"))


@pytest.fixture
def store():
    return f"memory://{os.urandom(8).hex()}"


def test_a_container_that_does_not_know_its_host_gets_no_card(store, inside):
    with lockkit.connect(store) as client:
        with pytest.raises(ConfigError, match=r"in a container \(Docker\)") as refused:
            lockkit.gpu.pool(client)
        assert "docker run -e LOCKKIT_GPU_HOST=$(hostname)" in (refused.value.hint or "")
        assert lockkit.gpu.pool(client, simulate=1).name == f"gpu-sim/{os.uname().nodename}"


def test_containers_that_name_one_host_keep_each_other_from_its_card(store, inside, monkeypatch):
    monkeypatch.setenv("LOCKKIT_GPU_HOST", "box")
    with lockkit.connect(store) as one, lockkit.connect(store) as other:
        cards = lockkit.gpu.pool(one)
        assert cards.name == "gpu/box"
        with cards.acquire(timeout=30), pytest.raises(AcquireTimeout):
            lockkit.gpu.pool(other).acquire(timeout=0)


def test_the_name_of_a_host_is_a_setting_as_any_other(store):
    with lockkit.connect(store) as client:
        assert lockkit.gpu.pool(client).name == f"gpu/{os.uname().nodename}"
    with lockkit.connect(store, gpu_host="box") as client:
        assert lockkit.gpu.pool(client).name == "gpu/box"
        assert lockkit.gpu.pool(client, host="rack").name == "gpu/rack"
    with pytest.raises(ConfigError, match=r"gpu\.host"):
        lockkit.connect(store, gpu_host="a/b")
