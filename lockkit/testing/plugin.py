"""The pytest plugin: ``lockkit_client``, ``async_lockkit_client``, and the conformance kit.

``pytest --lockkit-kit package.module:Harness`` runs the kit. pytest loads this plugin in every environment
that has lockkit, so it imports nothing until a test or an option needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lockkit.testing.clients import AsyncMemoryClient, MemoryClient
    from lockkit.testing.harness import Harness

__all__ = ["async_lockkit_client", "harness_named", "lockkit_client"]

_OPTION = "--lockkit-kit"
_WHOLE = "--lockkit-whole"
_COLLECTED = Path(__file__).with_name("collected.py")
_CHOSEN = pytest.StashKey["type[Harness]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the options."""
    group = parser.getgroup("lockkit")
    group.addoption(
        _OPTION,
        metavar="MODULE:HARNESS",
        help="run lockkit's conformance kit for this harness, e.g. tests.harness:MyHarness",
    )
    group.addoption(
        _WHOLE,
        action="store_true",
        help="run the kit with every kind of lock, even if a test file names only some: "
        "kit(Harness, shapes=...)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """With the option, run the kit, in addition to files and folders that the command line names."""
    wanted = config.getoption(_OPTION)
    if wanted:
        config.stash[_CHOSEN] = harness_named(wanted)
        named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*named, str(_COLLECTED)]


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> pytest.Collector | None:
    """Collect the tests of a ``kit(...)`` in a test file."""
    if type(obj).__module__ != "lockkit.testing.kit":
        return None
    from lockkit.testing.kit import Kit, KitCollector
    from lockkit.testing.shapes import SHAPES

    if not isinstance(obj, Kit):
        return None
    kit: KitCollector = KitCollector.from_parent(collector, name=name)
    kit.harness = obj.harness or collector.config.stash[_CHOSEN]
    kit.shapes = SHAPES if collector.config.getoption(_WHOLE) else obj.shapes
    return kit


@pytest.fixture
def lockkit_client(tmp_path: Path) -> Iterator[MemoryClient]:
    """A client on a memory store of this test, with its own clock: ``lockkit_client.clock.advance(60)``."""
    from lockkit.testing.clients import MemoryClient

    with MemoryClient(tmp_path) as client:
        yield client


@pytest.fixture
def async_lockkit_client(tmp_path: Path) -> Iterator[AsyncMemoryClient]:
    """The asyncio twin of ``lockkit_client``. Any event loop may use it; it is closed after the test."""
    from lockkit.testing.clients import AsyncMemoryClient

    client = AsyncMemoryClient(tmp_path)
    yield client
    client.shut()


def harness_named(wanted: str) -> type[Harness]:
    """The harness class that the option names.

    Raises:
        pytest.UsageError: There is no such class.
    """
    module, _, name = wanted.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(f"{_OPTION} {wanted}: {error}; write package.module:Harness") from error
    from lockkit.testing.harness import Harness

    if not (isinstance(found, type) and issubclass(found, Harness)):
        raise pytest.UsageError(f"{_OPTION} {wanted}: not a subclass of lockkit.testing.harness.Harness")
    return found
