"""The end of a process, and Ctrl-C meanwhile."""

from __future__ import annotations

import gc
import sys

import pytest

from lockkit.drivers import lifecycle
from lockkit.lib.origin import this_origin
from lockkit.testing.interrupts import Bomb, CtrlC


class Engine:
    def __init__(self):
        self.origin = this_origin()
        self.told = []

    def begin_close(self, reason, budget):
        self.told.append("begin")

    def await_close(self, longest):
        self.told.append("await")

    def wake_all(self):
        pass


@pytest.fixture
def engines(monkeypatch):
    engines = [Engine() for _ in range(3)]
    monkeypatch.setattr(lifecycle, "_engines", set(engines))
    monkeypatch.setattr(lifecycle, "_ending", False)
    monkeypatch.setattr(lifecycle, "_only_daemons", False)
    return engines


def test_one_ctrl_c_at_the_end_keeps_no_engine_from_being_closed_and_waited_for(engines, request):
    gc.collect()  # a strike in a finalizer of an earlier test's garbage would tell nothing
    gc.disable()
    request.addfinalizer(gc.enable)
    for at in range(1, 1000):
        for engine in engines:
            engine.told.clear()
        bomb = Bomb(at)
        try:
            with bomb:
                lifecycle._release_all("exit")
        except CtrlC:
            assert bomb.where
        if not bomb.where:
            break
        if at > 1:  # not at its very entry
            assert all(set(engine.told) == {"begin", "await"} for engine in engines), bomb.where
    assert at > 10


def test_an_engine_that_is_struck_at_the_end_or_fails_keeps_no_other_from_its_end(engines):
    def struck(longest, engine=engines[0]):
        engine.told.append("await")
        if len(engine.told) == 2:
            raise CtrlC

    def fails(reason, budget):
        raise ValueError("odd")

    engines[0].await_close = struck
    engines[1].begin_close = fails

    with pytest.raises(CtrlC):
        lifecycle._release_all("exit")

    assert engines[0].told == ["begin", "await", "begin", "await"]
    assert set(engines[1].told) == {"await"}
    assert set(engines[2].told) == {"begin", "await"}


def test_a_second_ctrl_c_ends_the_wait(engines):
    def struck(longest):
        raise CtrlC

    for engine in engines:
        engine.await_close = struck
    with pytest.raises(CtrlC):
        lifecycle._release_all("exit")
    assert [engine.told for engine in engines] == [["begin", "begin"]] * 3


@pytest.mark.parametrize(
    "module, is_inside",
    [
        ("lockkit.shared.opening", True),
        ("lockkit.sync.client", True),
        ("lockkit.cli.main", False),
        ("lockkit.testing.kit", False),
        ("lockkit_worker", False),
        ("theirs", False),
    ],
)
def test_a_stack_is_inside_only_where_lockkit_may_hold_what_a_close_needs(module, is_inside):
    space = {"__name__": module, "sys": sys}
    exec("def call(then): return then(sys._getframe())", space)
    assert space["call"](lifecycle.inside) is is_inside
