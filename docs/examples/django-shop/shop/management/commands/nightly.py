"""A job that cron, a CronJob or two of them start: the second one within ten minutes is skipped."""

from __future__ import annotations

import time
from argparse import ArgumentParser

from lockkit.integrations.django import LockedCommand


class Command(LockedCommand):
    lock = "nightly:{region}"
    on_busy = "skip"
    min_hold = 600

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--region", default="eu")
        parser.add_argument("--seconds", type=float, default=0.01)

    def handle(self, *args: object, **options: object) -> None:  # noqa: ARG002
        self.stdout.write(f"began {options['region']} with fence {self.lease.fence}")
        time.sleep(float(str(options["seconds"])))  # the work
        self.stdout.write("done")
