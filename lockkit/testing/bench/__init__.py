"""``lockkit bench``: measure lockkit on this machine, beside the floor that no lock can beat.

One run is the unit: contenders take turns in small rounds, so that whatever else the machine does hits all of them;
figures are medians, ratios are made within a round. Times of two runs say nothing about each other, ratios do.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run benches and print what they found: ``main(["uncontended", "--quick", "--json"])``."""
    from lockkit.testing.bench import command  # late: this package's processes import it, too

    return command.main(args)
