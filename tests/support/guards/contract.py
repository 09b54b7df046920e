"""Tests of any gate before a value in bytes, on its real resource. The test file of each inherits them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lockkit.errors import ConfigError, LeaseLost, NotHeld, StaleFence
from lockkit.guard import FenceGate
from support.guards.holders import FakeLease

__all__ = ["GateContract"]

Made = Callable[..., FenceGate]


class GateContract:
    """Needs a fixture ``make``, which returns gates before one unopened value, each with its own client."""

    def test_a_holder_reads_what_it_has_written(self, make: Made) -> None:
        with make().open(FakeLease(3)) as guarded:
            assert guarded.read() is None
            guarded.write(b"one\x00\xff")
            assert guarded.read() == b"one\x00\xff"
            guarded.write(b"")
            assert guarded.read() == b""

    def test_a_value_outlives_its_holder(self, make: Made) -> None:
        make().open(FakeLease(3)).write(b"one")

        guarded = make().open(FakeLease(4))

        assert guarded.read() == b"one"
        assert make().peek() == (4, b"one")

    def test_a_newer_holder_stops_an_older_one_before_it_has_written(self, make: Made) -> None:
        older = make().open(FakeLease(3))
        older.write(b"old")
        newer = make().open(FakeLease(4))

        with pytest.raises(StaleFence, match="fence 4, and this one is 3"):
            older.write(b"late")
        with pytest.raises(StaleFence):
            older.read()

        assert newer.read() == b"old"

    def test_an_older_holder_cannot_open(self, make: Made) -> None:
        make().open(FakeLease(10)).write(b"new")

        with pytest.raises(StaleFence, match="fence 10, and this one is 9"):
            make().open(FakeLease(9))

        assert make().peek() == (10, b"new")

    @pytest.mark.parametrize("low, high", [(9, 10), (2**53, 2**53 + 1), (10**10 - 1, 10**10), (1, 2**63 - 1)])
    def test_fences_are_compared_as_numbers(self, make: Made, low: int, high: int) -> None:
        older = make().open(FakeLease(low))
        make().open(FakeLease(high))

        with pytest.raises(StaleFence):
            older.write(b"late")
        with pytest.raises(StaleFence):
            make().open(FakeLease(low))

    def test_the_same_lease_may_open_again(self, make: Made) -> None:
        first = make().open(FakeLease(3))
        first.write(b"one")

        second = make().open(FakeLease(3))
        second.write(b"two")

        with pytest.raises(StaleFence, match="opened a second time under fence 3"):
            first.write(b"three")
        assert second.read() == b"two"

    def test_a_gate_serves_one_holder_after_the_other(self, make: Made) -> None:
        gate = make()
        older, newer = gate.open(FakeLease(3)), gate.open(FakeLease(4))

        newer.write(b"new")
        with pytest.raises(StaleFence):
            older.write(b"late")

        assert gate.peek() == (4, b"new")

    def test_a_removed_record_stops_its_holder(self, make: Made) -> None:
        gate = make()
        guarded = gate.open(FakeLease(3))
        guarded.write(b"one")
        gate.resource.forget()

        with pytest.raises(StaleFence, match="does not know fence 3"):
            guarded.write(b"two")

    @pytest.mark.parametrize("writes", [0, 1, 2])
    def test_a_record_that_was_made_again_fits_no_older_holder(self, make: Made, writes: int) -> None:
        """Nor does the version of the new one, which begins at 0 on some resources."""
        older = make().open(FakeLease(3))
        for _ in range(writes):
            older.write(b"old")
        make().resource.forget()
        newer = make().open(FakeLease(4))
        for _ in range(writes):
            newer.write(b"new")

        with pytest.raises(StaleFence):
            older.write(b"stale")

        assert newer.read() == (b"new" if writes else None)

    def test_bad_input_is_refused_before_anything_is_sent(self, make: Made) -> None:
        gate = make()
        with pytest.raises(ConfigError, match="shared"):
            gate.open(FakeLease(3, exclusive=False))
        with pytest.raises(ConfigError, match="takes the lease of a lock, not str"):
            gate.open("lease")  # type: ignore[arg-type]
        for fence in (0, -1, 2**63, True):
            with pytest.raises(ConfigError, match="fence must be"):
                gate.open(FakeLease(fence))
        assert make().peek() == (None, None)

        for timeout in (0, -1, True, float("nan"), float("inf"), "5"):
            with pytest.raises(ConfigError, match="timeout"):
                make(timeout=timeout)
        guarded = gate.open(FakeLease(3))
        with pytest.raises(ConfigError, match="takes bytes, not str"):
            guarded.write("text")  # type: ignore[arg-type]
        if gate.resource.largest is not None and gate.resource.largest < 1 << 24:
            with pytest.raises(ConfigError, match="at most"):
                guarded.write(bytes(gate.resource.largest + 1))
            guarded.write(bytes(gate.resource.largest))
        guarded.write(b"fine")

    def test_a_lease_that_is_not_valid_sends_nothing(self, make: Made) -> None:
        class Lost(FakeLease):
            def ensure_held(self) -> None:
                raise LeaseLost("gone")

        gate = make()
        with pytest.raises(LeaseLost):
            gate.open(Lost(5))
        assert make().peek() == (None, None)

        guarded = gate.open(FakeLease(3))
        guarded.close()
        with pytest.raises(NotHeld):
            guarded.write(b"late")
        assert make().peek() == (3, None)
