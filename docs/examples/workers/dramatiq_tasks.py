"""A Dramatiq actor: one at a time for each invoice, over all processes and threads."""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

import lockkit

dramatiq.set_broker(RedisBroker(url=os.environ.get("BROKER_URL", "redis://localhost:6379/0")))
client = lockkit.connect()  # opened in each process of the worker


def again(retries: int, error: BaseException) -> bool:
    return isinstance(error, dramatiq.Retry) or retries < 20


@dramatiq.actor(retry_when=again)
def bill(invoice: int, seconds: float = 0.2) -> None:
    try:
        with client.lock(f"invoice:{invoice}").acquire(timeout=0) as lease:
            time.sleep(seconds)  # the work
            print(f"billed {invoice}, fence {lease.fence}", flush=True)
    except lockkit.AcquireTimeout:
        raise dramatiq.Retry(delay=2000) from None  # busy: put back, and taken again in 2 s
