"""The stores that plugins offer: the offers that can be used, and the opening of a store of a third party."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lockkit.errors import PluginError
from lockkit.plugins.stores import SCHEMES, scheme_of
from lockkit.store.base import missing
from lockkit.store.spi import API, Backend, BackendSpec
from lockkit.values.redaction import scrub_error

__all__ = ["BACKENDS", "complete", "scrubbed", "usable"]

BACKENDS = "lockkit_backends"
"""The hook with which a plugin offers stores."""


def usable(call: Callable[[], object], report: Callable[[str], None]) -> list[BackendSpec]:
    """The stores that one plugin offers for this API version.

    Args:
        call: The plugin's implementation of the hook.
        report: Called with a sentence for each error in the offer.
    """
    try:
        offer = call()
    except Exception as error:
        report(f"{BACKENDS} raised {error!r}")
        return []
    if isinstance(offer, BackendSpec) or not isinstance(offer, (list, tuple)):
        report(f"{BACKENDS} must return a list, not {offer!r}")
        return []
    found: list[BackendSpec] = []
    for spec in offer:
        if not isinstance(spec, BackendSpec):
            report(f"{BACKENDS}: not a BackendSpec: {spec!r}")
        elif spec.api != API:
            report(f"the store {spec.name} was written for API {spec.api}; this lockkit has API {API}")
        else:
            found.append(spec)
    return found


def complete(spec: BackendSpec, backend: Backend) -> Backend:
    """The backend, if it has all calls. A third party's may lack some, with unclear errors at the first use.

    Raises:
        PluginError: Calls are missing.
    """
    lacks = missing(backend)
    if lacks:
        raise PluginError(
            f"the store {spec.name} has no {', '.join(lacks)}",
            hint="derive its class from lockkit.store.base.BasicBackend, which has what may be left out",
        )
    return backend


@contextmanager
def scrubbed(url: str) -> Iterator[None]:
    """Remove the hidden parts of a URL from errors of a third party's store; lockkit's own redact theirs."""
    try:
        yield
    except Exception as error:
        if scheme_of(url) not in SCHEMES:
            scrub_error(error, url)
        raise
