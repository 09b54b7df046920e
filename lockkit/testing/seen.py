"""A comparison of a store's queues after two steps: only the permitted claims may have changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from lockkit.store.queue import prefix
from lockkit.testing.harness import Harness, StoredClaim

__all__ = ["Seen", "lapsed", "show", "surely"]


class Seen:
    """The queues of some names, as they were when last read. Each failure starts with its guarantee.

    Args:
        harness: The store; its time stands still.
        names: The names to read.
        invalid: Returns claims whose holders know that they ran out. They may be removed at any moment.

    Attributes:
        queues: For each name the claims by claim id, without those past their deadlines.
        resized: Names with claims from before a resize, which may hold although they no longer fit.
    """

    def __init__(
        self, harness: Harness, names: Iterable[str], invalid: Callable[[], Collection[str]]
    ) -> None:
        self.harness = harness
        self.invalid = invalid
        self.queues: dict[str, dict[str, StoredClaim]] = {name: {} for name in names}
        self.resized: set[str] = set()
        self._over: set[str] = set()
        self._fences = dict.fromkeys(self.queues, 0)

    def compare(self, guarantee: str, may_go: set[str], granted: set[str], may_shorten: set[str]) -> None:
        """Read the queues, and compare them with the last ones.

        Args:
            guarantee: The guarantee that the step tested.
            may_go: The claims that may have been removed.
            granted: The claims that may be new, or may have become holders.
            may_shorten: The claims whose deadlines may be nearer, or that may be marked as evicted.
        """
        for name, before in self.queues.items():
            rows = self.harness.stored(name)
            now = self.harness.clock.now()
            after = {row.claim_id: row for row in rows if row.deadline is None or row.deadline > now}
            may_go = {*may_go, *self.invalid()}
            for id_, row in before.items():
                if id_ not in after and not lapsed(row, now):
                    assert id_ in may_go, f"{guarantee}: {show(row)} on {name!r} is gone, and was not to go"
                if id_ not in after:
                    self._over.add(id_)
            for id_, row in after.items():
                assert id_ not in self._over, f"S5-no-resurrection: {show(row)} on {name!r} is back"
                if id_ not in before:
                    assert id_ in granted, f"L4-no-leak: {show(row)} on {name!r} belongs to nobody"
                    high = self._fences[name]
                    assert row.fence > high, f"S4-fence: {row.fence} on {name!r} is not above {high}"
                    self._fences[name] = row.fence
                else:
                    _compare_one(guarantee, before[id_], row, may_go, granted, may_shorten)
            self._compare_order(name, list(after.values()), before)
            self.queues[name] = after

    def _compare_order(self, name: str, rows: list[StoredClaim], before: dict[str, StoredClaim]) -> None:
        assert [row.fence for row in rows] == sorted(row.fence for row in rows), f"S4-order: {name!r}"
        fits = prefix(rows)
        for place, row in enumerate(rows):
            old = before.get(row.claim_id)
            if row.state == "HELD" and (old is None or old.state != "HELD"):
                assert place < fits, f"S2-single-grant: {show(row)} on {name!r} holds beyond the prefix"
        if name not in self.resized:
            blocking = [row for row in rows if row.state in ("HELD", "LINGERING")]
            total = sum(row.weight for row in blocking)
            assert not blocking or total <= blocking[0].capacity, (
                f"S2-single-grant: {total} permits of {name!r}"
            )
        elif not rows:
            self.resized.discard(name)


def _compare_one(
    guarantee: str,
    old: StoredClaim,
    new: StoredClaim,
    may_go: set[str],
    granted: set[str],
    may_shorten: set[str],
) -> None:
    what, id_ = show(new), new.claim_id
    assert new.fence == old.fence, f"S4-fence: {what} had fence {old.fence}"
    if new.state == "HELD" and old.state != "HELD":
        assert old.state != "LINGERING", f"S5-no-resurrection: {what} had ended"
        assert id_ in granted, f"S2-single-grant: {what} holds and nobody asked"
    if old.state == "HELD" and new.state != "HELD":
        assert id_ in may_go, f"{guarantee}: {what} was a holder and was not to go"
    if new.state == old.state == "HELD" and id_ not in may_shorten:
        assert _deadline(new) >= surely(old), f"S1-shortened: {what} lapses earlier than before"
        assert new.evicted == old.evicted, f"{guarantee}: {what} was marked by nobody"


def lapsed(row: StoredClaim, now: float) -> bool:
    """Whether a claim may have lapsed."""
    return surely(row) <= now


def surely(row: StoredClaim) -> float:
    """The time until which a claim is certain to be there."""
    return float("inf") if row.surely is None else row.surely


def _deadline(row: StoredClaim) -> float:
    return float("inf") if row.deadline is None else row.deadline


def show(row: StoredClaim) -> str:
    """A claim as a text, for messages."""
    return f"claim {row.claim_id} ({row.state}, fence {row.fence}, weight {row.weight} of {row.capacity})"
