"""L2, L4: how clients end: closed with many holds, dropped, with their process."""

from __future__ import annotations

import gc
import multiprocessing
import warnings

from lockkit.facts import LayerReport
from lockkit.sync.lease import Lease
from lockkit.testing.faults import black_hole
from lockkit.testing.scenarios.leaks import footprint
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import NotApplicable, Stage, scenario

_MANY = 6
"""Holds of one client; one after the other, their releases would take several times the budget."""


@scenario("L2-close-many", (MUTEX,))
def close_many(stage: Stage) -> None:
    """Closing a client of a silent store runs every layer for each of many holds, within one budget."""
    patience = stage.harness.request_timeout
    client, faults = stage.faulty(request_timeout=patience)
    names = [f"{stage.name}/{n}" for n in range(_MANY)]
    leases = [stage.kept(client.lock(name, ttl=stage.harness.ttl).acquire(5.0)) for name in names]
    faults.always(black_hole)
    with stage.within(2.0 + 1.0, "close"):
        client.close()
    for lease in leases:
        assert not lease.valid()
        assert lease.report is not None, f"S9: no layer ran for {lease.name!r}"
        assert lease.report.outcome == "ABANDONED"
        assert [layer.outcome for layer in _removals(lease)] == ["UNKNOWN", "UNKNOWN"]
    faults.heal()
    stage.until(lambda: not any(map(stage.stored, names)), "L4: an abandoned claim stays")


def _removals(lease: Lease) -> list[LayerReport]:
    layers = lease.report.layers if lease.report is not None else ()
    return [layer for layer in layers if layer.layer != "cleanup"]


@scenario("L4-dropped-client", (MUTEX,))
def dropped_client(stage: Stage) -> None:
    """A client that is dropped without ``close()`` warns, and its threads and file descriptors end."""
    with stage.harness.client() as warm:
        stage.holder(warm).acquire(5.0).release()
    gc.collect()
    before = footprint()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        client = stage.harness.client()
        stage.holder(client).acquire(5.0).release()
        del client

        def warned() -> bool:
            gc.collect()
            return any("was never closed" in str(each.message) for each in told)

        stage.until(warned, "L4: no ResourceWarning")  # the event loop may have the last step of the call
    stage.until(lambda: not footprint() - before, "L4: a dropped client leaves threads or descriptors")


@scenario("L4-process-ends", (MUTEX,))
def process_ends(stage: Stage) -> None:
    """A child of multiprocessing, which ends without running ``atexit``, releases what it holds."""
    if stage.harness.capabilities.scope == "process":
        raise NotApplicable("nothing of this store reaches another process")
    if "fork" not in multiprocessing.get_all_start_methods():
        raise NotApplicable("there is no fork here")
    client = stage.client()
    kept: list[Lease] = []
    lock = stage.holder(client)
    child = multiprocessing.get_context("fork").Process(target=lambda: kept.append(lock.acquire(5.0)))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert stage.stored() == [], "L4: a child of multiprocessing has left its claim"
