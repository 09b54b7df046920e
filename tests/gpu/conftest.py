"""Hosts with NVIDIA cards that do not exist, and simulated cards."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import pytest

from lockkit.gpu.simulated import STATE_FILE
from support.nvml import Host, build


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """A function that gives the folder of NVIDIA's library, without some calls."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    if find_spec("pynvml") is None:
        pytest.skip("needs nvidia-ml-py")
    made = {}

    def library(*without):
        if without not in made:
            made[without] = build(tmp_path_factory.mktemp("nvml"), without=without)
        return made[without]

    return library


@pytest.fixture
def host(tmp_path, libraries):
    """A host with a driver; it has no card yet."""
    return Host(tmp_path, libraries())


@pytest.fixture
def say(client):
    """A function that sets the state of the simulated cards of ``client``'s host, a fixture of the file."""
    place = client.config.state_place(create=True).path / STATE_FILE

    def write(**cards):
        fresh = place.with_suffix(".new")
        fresh.write_text(json.dumps({name.removeprefix("card"): facts for name, facts in cards.items()}))
        fresh.replace(place)

    return write
