"""A schedule of APScheduler that runs on several hosts: each of them starts the job, and one runs it."""

from __future__ import annotations

from apscheduler.schedulers.blocking import BlockingScheduler

import lockkit

client = lockkit.connect()
scheduler = BlockingScheduler()


@scheduler.scheduled_job("cron", hour=3)
@client.locked("nightly report", timeout=0, on_busy="skip", min_hold=60)
def report() -> None:
    print("reported", flush=True)  # the work


if __name__ == "__main__":
    scheduler.start()
