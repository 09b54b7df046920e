"""The Celery application of a task that waits for its lock in the worker."""

from __future__ import annotations

from lockkit.integrations.celery import LockedTask
from support.celery.plain import make_app

__all__ = ["app"]

app = make_app("waiting")


@app.task(base=LockedTask, name="waiting.wait", lock="waiting", on_busy="wait")  # type: ignore[untyped-decorator]
def wait() -> None:
    """Hold a lock."""
