"""Hosts with NVIDIA cards that do not exist."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import pytest

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
