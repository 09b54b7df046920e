"""A Celery application whose tasks release their GPU in ``on_failure``, as with older GPU locks."""

from __future__ import annotations

from typing import Any

from celery import Task, current_task

from lockkit.gpu import gpu_lock, release_lock
from lockkit.integrations.celery import LockedTask
from support.celery.plain import make_app, stage

__all__ = ["app"]

app = make_app("hooks")


class Hooked(Task):  # type: ignore[misc]
    """A task whose failure hook releases the lock of its card."""

    abstract = True
    device = 0
    reason = "task_failure"
    by_id = False
    """Whether the hook passes the id of the task, as some programs did, in place of its name."""

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002 (Celery's signature)
        """Release the card."""
        stage().tell("hook", task_id)
        name = task_id if self.by_id else self.name
        released = release_lock(name, f"gpu_lock:{self.device}", self.reason)
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
    """Hold card 0, which ``gpu_lock()`` takes without a name."""
    return _play(self, how)


@app.task(bind=True, base=Hooked, name="hooks.second", device=1)  # type: ignore[untyped-decorator]
@gpu_lock(lock_key="gpu_lock:1")
def second(self: Any, how: str) -> str:
    """Hold card 1."""
    return _play(self, how)


@app.task(bind=True, base=Hooked, name="hooks.by_id", by_id=True)  # type: ignore[untyped-decorator]
@gpu_lock()
def by_id(self: Any, how: str) -> str:
    """Hold a card; the hook knows the task by its id."""
    return _play(self, how)


@app.task(base=Hooked, name="hooks.unbound", by_id=True)  # type: ignore[untyped-decorator]
@gpu_lock()
def unbound(how: str) -> str:
    """Hold a card, without an argument for the task; the hook knows it by its id."""
    return _play(current_task, how)


@app.task(bind=True, base=Hooked, name="hooks.wrong", reason="gone_wrong")  # type: ignore[untyped-decorator]
@gpu_lock()
def wrong(self: Any, how: str) -> str:
    """Hold a card; the hook passes a reason for a release that does not exist."""
    return _play(self, how)


@app.task(bind=True, base=Hooked, name="hooks.unlocked")  # type: ignore[untyped-decorator]
def unlocked(self: Any, how: str) -> str:
    """Hold nothing."""
    return _play(self, how)


@app.task(bind=True, base=LockedTask, name="hooks.locked", gpu=1)  # type: ignore[untyped-decorator]
def locked(self: Any, how: str) -> str:
    """Hold a card, without any hook."""
    return _play(self, how)
