"""Modules that another thread, or the code that a signal handler interrupted, has imported only in part."""

from __future__ import annotations

import sys
import types

import pytest

import lockkit
from lockkit.drivers import lifecycle
from lockkit.errors import AcquireTimeout


@pytest.fixture
def client(tmp_path):
    with lockkit.connect("memory://half-imported", state_dir=str(tmp_path)) as client:
        yield client


def test_a_lock_is_taken_while_another_thread_imports_asyncio(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncio", types.ModuleType("asyncio"))

    client.lock("a").acquire(timeout=1).release()


def test_a_store_is_opened_while_another_thread_imports_multiprocessing(client, monkeypatch):
    monkeypatch.setattr(lifecycle, "_registered_by", None)
    half = types.ModuleType("multiprocessing.process")
    monkeypatch.setitem(sys.modules, "multiprocessing.process", half)

    client.lock("a").acquire(timeout=1).release()


def test_a_signal_handler_that_times_out_finds_shlex_imported(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "shlex", types.ModuleType("shlex"))

    with client.lock("a").acquire().detach(), pytest.raises(AcquireTimeout):
        client.lock("a").acquire(timeout=0.01)
