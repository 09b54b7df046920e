"""Plugins: finding, loading and calling them. :mod:`lockkit.plugins.specs` defines the hooks."""

from __future__ import annotations

from lockkit.plugins.calling import Outcome
from lockkit.plugins.manager import PluginInfo, PluginManager

__all__ = ["Outcome", "PluginInfo", "PluginManager"]
