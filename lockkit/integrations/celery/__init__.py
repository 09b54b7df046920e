"""Locks for Celery tasks: run a task only with its lock, semaphore, pool members or GPU. Extra: ``celery``.

from lockkit.integrations.celery import LockedTask

@app.task(bind=True, base=LockedTask, lock="invoice:{invoice_id}", ttl=30, on_busy="retry", max_wait=600)
def bill(self, invoice_id): ...
"""

from __future__ import annotations

from lockkit.facts import Skipped
from lockkit.integrations.celery import worker as _worker  # noqa: F401 (for its handlers of Celery's signals)
from lockkit.integrations.celery.clients import client_of
from lockkit.integrations.celery.declaring import locked_task
from lockkit.integrations.celery.skipping import skipped_in
from lockkit.integrations.celery.task import LockedTask

__all__ = ["LockedTask", "Skipped", "client_of", "locked_task", "skipped_in"]
