"""The application of the fleet: a task that charges an account, one at a time for each account."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from celery import Celery

import lockkit
from lockkit.integrations.celery import LockedTask

app = Celery("shop", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_acks_late=True,  # a message whose worker dies is delivered again ...
    task_reject_on_worker_lost=True,  # ... at once, if only a process of the worker died
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    # Short, so that the example does not last an hour. In earnest: longer than any task.
    broker_transport_options={"visibility_timeout": 6, "unacked_restore_interval": 1},
)
LEDGER = Path(os.environ["LEDGER"])


def tell(what: str, account: str, order: str, fence: int) -> None:
    """Add an event to the ledger. Appends of one line do not mix."""
    event = {"what": what, "account": account, "order": order, "fence": fence, "pid": os.getpid()}
    with LEDGER.open("a") as ledger:
        ledger.write(json.dumps(event | {"node": os.environ["NODE_NAME"], "at": time.monotonic()}) + "\n")


def events() -> list[dict[str, object]]:
    """All events of the ledger, in order."""
    return [json.loads(line) for line in LEDGER.read_text().splitlines()] if LEDGER.exists() else []


@app.task(bind=True, base=LockedTask, lock="account:{account}", ttl=3, on_busy="retry", max_wait=600)
def charge(self: LockedTask, account: str, order: str, seconds: float) -> None:
    lease, before = self.lease, [event["what"] for event in events() if event["order"] == order]
    if "charged" in before:
        return  # a second delivery of the message: nothing is left to do
    tell("begins", account, order, lease.fence)
    end = time.monotonic() + (0.1 if before else seconds)  # the first try may be long, to be struck
    while time.monotonic() < end and lease.valid():
        time.sleep(0.02)  # the work
    try:
        lease.ensure_held()  # before what cannot be undone
    except lockkit.LeaseLost as lost:
        tell("refused", account, order, lease.fence)
        raise self.retry(
            countdown=1, max_retries=None, exc=lost
        ) from lost  # unless another one has done it by then
    tell("charged", account, order, lease.fence)
