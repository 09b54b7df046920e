"""Four tasks, each with another kind of lock."""

from __future__ import annotations

import os
import subprocess
import sys

from celery import Celery

from lockkit.integrations.celery import LockedTask

broker = os.environ.get("BROKER_URL", "redis://localhost:6379/0")
app = Celery("tasks", broker=broker, backend=broker)
app.conf.update(
    lockkit_url=os.environ.get("LOCKKIT_URL", "redis://localhost:6379/1"),
    task_acks_late=True,  # a message whose worker dies is delivered again ...
    task_reject_on_worker_lost=True,  # ... at once, if only a process of the worker died
    task_time_limit=1800,  # below the broker's visibility timeout (1 h), which delivers a message again
    worker_prefetch_multiplier=1,
)


@app.task(bind=True, base=LockedTask, lock="invoice:{invoice_id}", on_busy="retry", max_wait=600)
def bill(self: LockedTask, invoice_id: int) -> str:
    """Bill one invoice. Two workers never bill the same one at once; different ones run side by side."""
    self.lease.beat(progress=0.5, message="rendering")
    return f"billed {invoice_id} as number {self.lease.fence}"


@app.task(
    base=LockedTask,
    lock="nightly-report",
    on_busy="skip",
    min_hold=60,
    acks_late=False,
    reject_on_worker_lost=False,
)
def report() -> str:
    """Write the report once, even if sent twice. A run that dies is not repeated: its ack comes early."""
    return "written"


@app.task(base=LockedTask, lock="crm", capacity=3, max_wait=3600)
def sync(customer: str) -> str:
    """Ask a service that allows three requests at a time, from however many workers."""
    return f"{customer} is in sync"


@app.task(bind=True, base=LockedTask, gpu=1, gpu_mem="8GiB", time_limit=3600)
def transcribe(self: LockedTask, path: str) -> str:
    """Take 8 GiB of a GPU of the worker's host. A program that the task starts sees this GPU only."""
    show = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    seen = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return f"{path}: {len(self.gpus)} GPU, number {seen.stdout.strip()}"
