"""The synchronous and the asynchronous classes have the same methods, with the same parameters."""

from __future__ import annotations

import inspect

import pytest

import lockkit
import lockkit.aio

ONE_FACE = {
    "Client": {"check_plugins", "check_store", "driver", "release_all", "warn"},
    "Lease": {"begin_release", "cancel_on_loss", "release_now"},
    "Leases": {"cancel_on_loss"},
}
"""The attributes of one face alone."""
PAIRS = [
    (getattr(lockkit, name), getattr(lockkit.aio, f"Async{name}"))
    for name in ("AllOf", "AnyOf", "Client", "Lease", "Leases", "Lock", "Pool")
]


@pytest.mark.parametrize("face,twin", PAIRS, ids=lambda kind: kind.__name__)
def test_both_faces_have_the_same_methods_and_parameters(face, twin):
    one, other = ({name for name in dir(kind) if not name.startswith("_")} for kind in (face, twin))

    assert one ^ other == ONE_FACE.get(face.__name__, set())
    for name in one & other:
        if callable(getattr(face, name)):
            expected = parameters(getattr(face, name))
            expected.pop("cancel", None)  # a task is cancelled instead
            assert parameters(getattr(twin, name)) == expected, name


def parameters(function):
    return {key: (one.kind, one.default) for key, one in inspect.signature(function).parameters.items()}
