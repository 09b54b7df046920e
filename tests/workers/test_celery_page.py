"""The tasks of docs/howto/celery.md in a real worker."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs/examples/celery"


@pytest.fixture(scope="module")
def tasks(rig):
    """The page's module in this process, beside a worker that runs its tasks."""
    paths = [str(EXAMPLE), *filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))]
    rig.worker(
        "tasks",
        environ={
            "PYTHONPATH": os.pathsep.join(paths),
            "LOCKKIT_GPU_SIMULATE": "2",
            "LOCKKIT_GPU_HOST": "box",
        },
        options=["-I", "support.celery.plain"],  # tells when the worker is ready
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        for name, value in rig.environ.items():
            patch.setenv(name, value)
        yield importlib.import_module("tasks")
        sys.modules.pop("tasks")


def test_each_task_of_the_page_runs_as_the_page_says(tasks):
    sent = [
        tasks.bill.delay(7),
        tasks.report.delay(),
        tasks.sync.delay("ann"),
        tasks.transcribe.delay("a.wav"),
    ]

    billed, written, in_sync, text = [one.get(timeout=40) for one in sent]
    assert re.fullmatch(r"billed 7 as number \d+", billed)
    assert written == "written"
    assert in_sync == "ann is in sync"
    assert re.fullmatch(r"a\.wav: 1 GPU, number \d", text)


def test_a_second_scheduler_skips_the_nightly_report(tasks):
    from lockkit.integrations.celery import skipped_in

    tasks.report.delay().get(timeout=40)  # or the one of the test above: its min_hold goes on
    assert skipped_in(tasks.report.delay().get(timeout=40)).name == "nightly-report"


def test_a_busy_invoice_is_billed_when_it_is_free(tasks, rig):
    client = rig.client()
    with client.lock("invoice:8").acquire(timeout=10).detach():
        late = tasks.bill.delay(8)
        tasks.bill.delay(9).get(timeout=40)
        assert late.state != "SUCCESS"
    assert late.get(timeout=60).startswith("billed 8")
    assert late.state == "SUCCESS"
