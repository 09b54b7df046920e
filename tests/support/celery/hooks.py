"""The Celery application of the tests of failure hooks: tasks as the old GPU workers had them, and the same with the new names."""

from __future__ import annotations

from typing import Any

from celery import Task

from lockkit.gpu import gpu_lock, release_lock
from lockkit.integrations.celery import LockedTask
from support.celery.plain import make_app, stage

__all__ = ["app"]

app = make_app("hooks")


class Hooked(Task):  # type: ignore[misc]
    """A task whose failure hook releases its card, as that of the old workers should have done."""

    abstract = True
    device = 0
    reason = "task_failure"

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002 (Celery's signature)
        """Release the card."""
        stage().tell("hook", task_id)
        released = release_lock(self.name, f"gpu_lock:{self.device}", self.reason)
        stage().tell("hook done", task_id, released=released)


def _play(task: Any, how: str) -> str:
    here = stage()
    here.tell("begun", task.request.id)
    if how == "wait":
        how = here.wait_for_word(task.request.id)
    if how == "fail":
        raise ValueError("told to fail")
    return how


@app.task(bind=True, base=Hooked, name="hooks.first")  # type: ignore[untyped-decorator]
@gpu_lock()
def first(self: Any, how: str) -> str:
    """Hold the card that is meant by default."""
    return _play(self, how)


@app.task(bind=True, base=Hooked, name="hooks.second", device=1)  # type: ignore[untyped-decorator]
@gpu_lock(lock_key="gpu_lock:1")
def second(self: Any, how: str) -> str:
    """Hold another card."""
    return _play(self, how)


@app.task(bind=True, base=Hooked, name="hooks.wrong", reason="gone_wrong")  # type: ignore[untyped-decorator]
@gpu_lock()
def wrong(self: Any, how: str) -> str:
    """Hold a card; the hook has a mistake."""
    return _play(self, how)


@app.task(bind=True, base=Hooked, name="hooks.unlocked")  # type: ignore[untyped-decorator]
def unlocked(self: Any, how: str) -> str:
    """Hold nothing."""
    return _play(self, how)


@app.task(bind=True, base=LockedTask, name="hooks.locked", gpu=1)  # type: ignore[untyped-decorator]
def locked(self: Any, how: str) -> str:
    """Hold a card, without any hook."""
    return _play(self, how)
