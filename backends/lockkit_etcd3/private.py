"""The undocumented parts of python-etcd3 and gRPC that lockkit uses, and nothing else.

The extra ``python-etcd3`` keeps both below the first untried version. tests/backends/test_etcd3_private.py
shows which of these names a newer one has changed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["STUBS", "channel", "missing", "open_channels", "threads"]

STUBS = "etcd3.etcdrpc"
"""The module of the generated messages and stubs. python-etcd3's documented calls lack ranges in a
transaction, headers, a deadline per call and the reason of a cancelled watch. Alternative: stubs generated
from etcd's ``rpc.proto``, which need protobuf at run time as well."""

_STUBS = ("KVStub", "LeaseStub", "WatchStub", "MaintenanceStub", "AuthStub", "TxnRequest", "Compare")

_THREADS = ("event_engine", "grpc_", "lifeguard", "default-", "resolver-", "timer_manager")
"""Prefixes of the names of gRPC's own threads; Linux keeps 15 characters. Alternative: a call that says
whether gRPC has ended its threads (``grpc_is_initialized`` of its C interface, which Python cannot reach)."""


def missing(stubs: Any) -> str:
    """A name that is missing in the module of the stubs; or nothing."""
    return next((name for name in _STUBS if not hasattr(stubs, name)), "")


def channel(client: Any) -> Any:
    """The channel of a python-etcd3 client. Alternative: ``grpc.secure_channel``, certificates read here."""
    return client.channel


def threads() -> int:
    """How many threads of gRPC's own run in this process; 0 where the operating system does not list them."""
    found = 0
    try:
        tasks = os.listdir("/proc/self/task")  # noqa: PTH208 - a fork waits for this
    except OSError:
        return 0
    for task in tasks:
        try:
            with open(f"/proc/self/task/{task}/comm", encoding="ascii", errors="replace") as file:  # noqa: PTH123
                found += file.read().startswith(_THREADS)
        except OSError:  # it has ended meanwhile
            pass
    return found


def open_channels() -> int:
    """How many channels are open in this process, whoever opened them; 0 where gRPC does not say so.

    gRPC keeps them for its own preparations for a fork. Alternative: none; then a process that uses gRPC
    elsewhere too would take a second longer to fork, and its children would be refused.
    """
    try:
        return len(sys.modules["grpc._cython.cygrpc"]._fork_state.channels)  # noqa: SLF001
    except (AttributeError, KeyError):
        return 0
