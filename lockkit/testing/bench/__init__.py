"""``lockkit bench``: measure lockkit on this machine, and the floor: the least that any lock has to do.

In one run the contenders take turns in small rounds, so that other load on the machine affects all of them. Figures are medians, and
ratios are computed within a round. Times of two runs cannot be compared; ratios can.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run benches and print the figures: ``main(["uncontended", "--quick", "--json"])``."""
    from lockkit.testing.bench import command  # late: the worker processes import this package too

    return command.main(args)
