"""Plugins: finding, loading and calling them. What they may implement stands in :mod:`lockkit.plugins.specs`."""

from __future__ import annotations

from lockkit.plugins.calling import Outcome
from lockkit.plugins.manager import PluginInfo, PluginManager

__all__ = ["Outcome", "PluginInfo", "PluginManager"]
