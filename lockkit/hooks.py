"""The marker with which plugins tag their hook implementations.

from lockkit.hooks import hookimpl

@hookimpl
def lockkit_cleanup(context): ...
"""

from __future__ import annotations

import pluggy

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "lockkit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
