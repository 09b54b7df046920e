"""docs/howto/from-celery-once.md: its program prints the shown text, and every old option has a row."""

from __future__ import annotations

import re

import pytest

from support.pages import section, table

PAGE = "docs/howto/from-celery-once.md"
ONCE = [
    '"keys"', '"graceful"', '"timeout"', '"unlock_before_run"', "default_timeout", "AlreadyQueued",
    "AlreadyQueued.countdown", "QueueOnce", 'ONCE["backend"]', 'settings["url"]', 'settings["blocking"]',
    'settings["blocking_timeout"]', "celery_once.backends.Redis", "celery_once.backends.File",
    'settings["location"]', "apply_async(once=", "clear_lock",
]  # fmt: skip
"""The options of celery-once 3.0.1, as in its modules tasks, backends.redis and backends.file."""
SINGLETON = [
    "base=Singleton", "unique_on", "raise_on_duplicate", "lock_expiry", "DuplicateTaskError",
    "singleton_backend_url", "singleton_backend_class", "singleton_backend_kwargs", "singleton_key_prefix",
    "singleton_raise_on_duplicate", "singleton_lock_expiry", "clear_locks", "release_lock", "unlock",
    "generate_lock",
]  # fmt: skip
"""The options of celery-singleton 0.3.1, as in its modules singleton and config."""


def test_the_program_prints_what_the_page_says(pages, program):
    pytest.importorskip("celery")
    text = section(pages[PAGE], "## Before and after")
    (code,) = re.findall(r"^```\{code-block\} python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (printed,) = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)

    assert program(code, config='url = "memory:"\n').stdout == printed


@pytest.mark.parametrize("title,options", [("celery-once", ONCE), ("celery-singleton", SINGLETON)])
def test_each_option_has_a_row(pages, title, options):
    rows = "\n".join(row[0] for row in table(section(pages[PAGE], f"## Options of {title}")))

    assert [option for option in options if option not in rows] == []
