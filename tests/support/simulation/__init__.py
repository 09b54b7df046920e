"""The real protocol on a virtual clock, against model stores, with a schedule that decides everything.

>>> from support.simulation import SETUPS, explore
>>> explore(SETUPS["mutex-atomic"], bytes(100)).violations
[]
"""

from __future__ import annotations

from support.simulation.report import incident, schedules, shrunk
from support.simulation.setups import ON_REDIS, SETUPS, explore
from support.simulation.world import Faults, Setup, World

__all__ = ["ON_REDIS", "SETUPS", "Faults", "Setup", "World", "explore", "incident", "schedules", "shrunk"]
