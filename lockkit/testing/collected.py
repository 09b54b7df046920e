"""The file that ``pytest --lockkit-kit`` collects: the kit for the harness that the option names."""

from __future__ import annotations

from lockkit.testing.kit import Kit

__all__ = ["kit"]

kit = Kit(None)
