"""Deliberate mistakes that the simulation and the kit must notice, each by the check that is meant for it.

A check that cannot fail is no check. :data:`MUTANTS` is the list; ``mutant.attempt()`` runs one in the
simulation, and :func:`~support.mutants.onstores.mutated` puts those of the interface around a real store.
"""

from __future__ import annotations

from support.mutants.gallery import MUTANTS
from support.mutants.mutant import Mutant, Trial

__all__ = ["MUTANTS", "Mutant", "Trial"]
