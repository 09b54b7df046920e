"""Pools of somebody's own, derived from those of Celery."""

from __future__ import annotations

from celery.concurrency.base import BasePool
from celery.concurrency.prefork import TaskPool as Processes
from celery.concurrency.thread import TaskPool as Threads

__all__ = ["OwnProcesses", "OwnThreads", "Unknown"]


class OwnProcesses(Processes):  # type: ignore[misc]
    """A pool of processes."""


class OwnThreads(Threads):  # type: ignore[misc]
    """A pool of threads."""


class Unknown(BasePool):  # type: ignore[misc]
    """A pool of another kind."""
