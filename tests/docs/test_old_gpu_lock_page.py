"""Both programs on the old GPU lock's page print the shown text, and the page has each old name."""

from __future__ import annotations

import inspect
import re

import pytest

import lockkit.gpu
from lockkit.gpu import gpu_lock
from lockkit.gpu.old_names import REASONS
from support.pages import section

PAGE = "docs/howto/from-the-old-gpu-lock.md"
CONFIG = 'url = "memory:"\n[gpu]\nsimulate = 1\n'


def all_said(pages, title):
    """The programs under a heading, each with what the page says that it prints."""
    text = section(pages[PAGE], title)
    codes = re.findall(r"^```\{code-block\} python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return list(zip(codes, re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL), strict=True))


def said(pages, title):
    """The program under a heading, and what the page says that it prints."""
    ((code, printed),) = all_said(pages, title)
    return code, printed


def test_tasks_of_the_old_kind_run_as_they_are(pages, program):
    code, printed = said(pages, "## Before")

    assert (
        program(
            f"import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n{code}", config=CONFIG
        ).stdout
        == printed
    )


def test_the_same_tasks_run_with_the_new_names(pages, program):
    code, printed = said(pages, "## After")

    assert program(code, config=CONFIG).stdout == printed


@pytest.mark.parametrize("which", ["before", "after"])
def test_the_tasks_of_a_celery_worker_run_before_and_after(pages, program, which):
    pytest.importorskip("celery")
    before, after = all_said(pages, "## In a Celery worker")
    code, printed = before if which == "before" else after

    done = program(
        f"import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n{code}", config=CONFIG
    )

    assert done.stdout == printed


def test_each_old_keyword_and_reason_has_a_row(pages):
    text = section(pages[PAGE], "## Each keyword, key and reason")
    rows = "\n".join(line.split(" | ")[0] for line in text.splitlines())
    keywords = [name for name in inspect.signature(gpu_lock).parameters if name != "client"]

    assert [name for name in keywords if f"`{name}" not in rows] == []
    assert [reason for reason in REASONS if f'"{reason}"' not in rows] == []


def test_the_old_names_that_an_import_does_not_replace_have_a_row(pages):
    rows = section(pages[PAGE], "## What needs more than a new import")
    old = ["SmartGpuLockManager", "acquire_lock_with_smart_polling", "force_release_lock", "release_gpu_lock"]

    assert [name for name in old if f"`{name}" not in rows and f".{name}(" not in rows] == []
    assert [name for name in old if hasattr(lockkit.gpu, name)] == []


def test_the_call_in_the_place_of_the_manager_takes_the_card_of_that_key(program):
    done = program(
        "import lockkit, lockkit.gpu\n"
        "from lockkit.gpu import gpu_lock\n"
        "with lockkit.connect() as client:\n"
        "    @gpu_lock('gpu_lock:0', max_wait_time=0, client=client)\n"
        "    def task(): ...\n"
        "    cards = lockkit.gpu.pool(client)\n"
        "    leases = cards.acquire(ids=['0'], timeout=300).detach()\n"
        "    import threading\n"
        "    told = []\n"
        "    def run():\n"
        "        try: task()\n"
        "        except lockkit.AcquireTimeout as late: told.append(str(late)[:16])\n"
        "    thread = threading.Thread(target=run); thread.start(); thread.join()\n"
        "    print(*told, leases.release('task_failure').released)\n",
        config=CONFIG,
    )
    assert done.stdout == "GPU_LOCK_TIMEOUT True\n"
