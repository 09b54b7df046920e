"""Memory that a program's frameworks are asked to give back: stand-ins, as the real ones need a card."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from uuid import UUID

import pytest

from lockkit.gpu.frameworks import imported, keepers

FIRST, SECOND = (f"GPU-{number:08x}-1111-2222-3333-444444444444" for number in (1, 2))
PLAIN = {uuid: uuid.removeprefix("GPU-") for uuid in (FIRST, SECOND)}


@pytest.fixture(autouse=True)
def none_imported(monkeypatch):
    for name in ("torch", "cupy", "paddle", "jax", "tensorflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def module(monkeypatch):
    """A function that puts a module in place, as if the program had imported it."""

    def put(name, **what):
        made = ModuleType(name)
        vars(made).update(what)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return put


class Torch:
    """torch.cuda with two cards, as far as it is used: what was called, and on which card."""

    def __init__(self, reserved=(0, 0), uuids=(PLAIN[FIRST], PLAIN[SECOND]), *, ready=True):
        self.calls = []
        self.current = 0
        self.memory_reserved = reserved.__getitem__
        self.device_count = lambda: len(reserved)
        self.is_initialized = lambda: ready
        self.get_device_properties = lambda index: (
            SimpleNamespace(uuid=uuids[index]) if uuids else SimpleNamespace()
        )

    @contextmanager
    def device(self, index):
        before, self.current = self.current, index
        try:
            yield
        finally:
            self.current = before

    def empty_cache(self):
        self.calls.append(("empty_cache", self.current))

    def ipc_collect(self):
        self.calls.append(("ipc_collect", self.current))


def test_only_frameworks_that_the_program_has_imported_are_asked(module):
    assert imported(FIRST) == {}
    module("torch", cuda=Torch())
    assert list(imported(FIRST)) == ["torch"]


def test_a_framework_that_is_just_being_imported_is_left_alone(module):
    made = module("torch", cuda=Torch())
    made.__spec__ = ModuleSpec("torch", None)
    made.__spec__._initializing = True
    assert imported(FIRST) == {}


@pytest.mark.parametrize(
    "cuda, uuid, cards",
    [
        (Torch((5, 5)), SECOND, [1]),
        (Torch((5, 0)), SECOND, []),
        (Torch((0, 5)), SECOND, [1]),
        (Torch((5, 5), ready=False), SECOND, []),
        (Torch((0, 5), uuids=()), SECOND, [1]),
        (Torch((5, 5), uuids=(UUID(PLAIN[FIRST]), UUID(PLAIN[SECOND]))), FIRST, [0]),
    ],
)
def test_torch_empties_its_cache_on_that_card_and_touches_none_where_it_has_nothing(
    module, cuda, uuid, cards
):
    module("torch", cuda=cuda)
    imported(uuid)["torch"]()
    assert cuda.calls == [(call, card) for card in cards for call in ("empty_cache", "ipc_collect")]
    assert cuda.current == 0


@pytest.mark.parametrize(
    "uuids, cards",
    [
        ((UUID(PLAIN[FIRST]).bytes, UUID(PLAIN[SECOND]).bytes), [1]),
        ((None, None), []),  # nothing tells which is which
        ((None,), [0]),
        ((UUID(PLAIN[FIRST]).bytes,), []),
    ],
)
def test_cupy_frees_its_pool_on_that_card_alone(module, uuids, cards):
    freed, current = [], []

    @contextmanager
    def device(index):
        current.append(index)
        yield
        current.pop()

    runtime = SimpleNamespace(
        getDeviceCount=lambda: len(uuids), getDeviceProperties=lambda index: {"uuid": uuids[index]}
    )
    pool = SimpleNamespace(free_all_blocks=lambda: freed.append(current[-1]))
    module(
        "cupy",
        cuda=SimpleNamespace(runtime=runtime, Device=device),
        get_default_memory_pool=lambda: pool,
    )
    imported(SECOND)["cupy"]()
    assert freed == cards


@pytest.mark.parametrize("before, chosen", [("gpu:1", []), ("cpu", ["gpu:1", "cpu"])])
def test_paddle_empties_its_cache_and_works_on_the_same_card_afterwards(module, before, chosen):
    now, calls = [before], []

    def choose(device):
        calls.append(device)
        now[0] = device

    freed = []
    cuda = SimpleNamespace(
        device_count=lambda: 2, memory_reserved=(0, 7).__getitem__, empty_cache=lambda: freed.append(now[0])
    )
    module("paddle", device=SimpleNamespace(cuda=cuda, get_device=lambda: now[0], set_device=choose))
    imported(SECOND)["paddle"]()
    assert (freed, calls, now) == (["gpu:1"], chosen, [before])


def test_what_cannot_give_memory_back_is_said(module):
    assert keepers() == ()
    module("jax")
    assert keepers() == ("jax gives memory back only when its process ends",)
