"""An RQ job: one at a time for each invoice, over all workers."""

from __future__ import annotations

import time

from rq import Retry

import lockkit

client = lockkit.connect()  # opened in the work horse, after the fork


def bill(invoice: int, seconds: float = 0.2) -> str | Retry:
    try:
        with client.lock(f"invoice:{invoice}").acquire(timeout=0) as lease:
            time.sleep(seconds)  # the work
            return f"billed {invoice}, fence {lease.fence}"
    except lockkit.AcquireTimeout:
        return Retry(max=1000, interval=2)  # busy: put back, and taken again in 2 s
