"""Fixtures of the files whose tests run on the memory store and on the embedded one."""

from __future__ import annotations

import os

import pytest

import lockkit


@pytest.fixture(params=["memory", "sqlite"])
def url(request, tmp_path):
    return f"memory://{os.urandom(8).hex()}" if request.param == "memory" else f"sqlite:{tmp_path}/locks.db"


@pytest.fixture
def client(url):
    with lockkit.connect(url) as client:
        yield client


@pytest.fixture
def other(url):
    """Another client of the same store: another process, as far as the locks are concerned."""
    with lockkit.connect(url) as other:
        yield other
