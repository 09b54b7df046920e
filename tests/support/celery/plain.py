"""A Celery application of a test without locks; and the settings that the applications of all tests share.

URLs come from the environment: BROKER_URL, STAGE_URL, and LOCKKIT_URL for lockkit itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.signals import worker_ready

from support.celery.stage import Stage

__all__ = ["app", "make_app", "stage"]


def make_app(name: str, **settings: object) -> Any:
    """An application on the test's broker, with results kept there, too."""
    broker = os.environ["BROKER_URL"]
    assert broker, (
        "imported before the rig has said where the broker is: Celery would take that of its own defaults"
    )
    made = Celery(name, broker=broker, backend=broker)
    made.conf.update(
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_default_queue=os.environ.get("TEST_QUEUE", "celery"),
        broker_transport_options={"visibility_timeout": 3600},
        result_expires=3600,
        **settings,
    )
    return made


def stage() -> Stage:
    """The stage of this test, on a connection of this process."""
    return Stage(os.environ["STAGE_URL"])


@worker_ready.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _tell_ready(**_: object) -> None:
    Path(os.environ["READY_FILE"]).touch()


app = make_app("plain")


@app.task(bind=True, name="plain.meet")  # type: ignore[untyped-decorator]
def meet(self: Task) -> str:
    """Begin, wait for a word, and return it."""
    here = stage()
    here.tell("begun", self.request.id)
    word = here.wait_for_word(self.request.id)
    here.tell("done", self.request.id)
    return word
