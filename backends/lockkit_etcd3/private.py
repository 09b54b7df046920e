"""Everything that lockkit uses of python-etcd3 and gRPC without their documentation promising it, and nothing else.

The extra ``python-etcd3`` keeps both below a version that nobody has tried. tests/backends/test_etcd3_private.py says which
of these names a newer one has changed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["STUBS", "channel", "missing", "open_channels", "threads"]

STUBS = "etcd3.etcdrpc"
"""The module of the generated messages and stubs. python-etcd3 documents its own calls only, which know no ranges in a
transaction, no headers, no deadline of a single call and no reason of a cancelled watch. In its place: stubs generated from
etcd's ``rpc.proto``, which need protobuf at run time as well."""

_STUBS = ("KVStub", "LeaseStub", "WatchStub", "MaintenanceStub", "AuthStub", "TxnRequest", "Compare")

_THREADS = ("event_engine", "grpc_", "lifeguard", "default-", "resolver-", "timer_manager")
"""How the names of gRPC's own threads begin; Linux keeps 15 characters. In their place: a call that says whether gRPC has
ended its threads (``grpc_is_initialized`` of its C interface, which Python cannot reach)."""


def missing(stubs: Any) -> str:
    """A name that is missing in the module of the stubs; or nothing."""
    return next((name for name in _STUBS if not hasattr(stubs, name)), "")


def channel(client: Any) -> Any:
    """The channel of a client of python-etcd3. In its place: ``grpc.secure_channel`` with certificates read here."""
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

    gRPC keeps them for its own preparations for a fork. In their place: nothing; then a process that uses gRPC for something
    else as well would take a second longer to fork, and its children would be refused.
    """
    try:
        return len(sys.modules["grpc._cython.cygrpc"]._fork_state.channels)  # noqa: SLF001
    except (AttributeError, KeyError):
        return 0
