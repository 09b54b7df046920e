"""The fixture that watches the page notices every fault: otherwise no test here could fail for one."""

from __future__ import annotations

import pytest

from lockkit.testing.processes import until

from .conftest import Visit

pytest.importorskip("playwright.sync_api")


NOTICED = {
    "console.error('an error')": "error: an error",
    "console.warn('a warning')": "warning: a warning",
    "setTimeout(() => { throw new Error('raised') })": "raised: raised",
    "Promise.reject(new Error('rejected')) && 0": "raised: rejected",
    "fetch('http://127.0.0.1:9/elsewhere').catch(() => 0)": "violates the following Content Security Policy",
    "window.open('http://127.0.0.1:9/elsewhere') && 0": "asked: http://127.0.0.1:9/",
    "document.body.insertAdjacentHTML('beforeend', '<p style=color:red>')": "Applying inline style violates",
    "confirm('sure?')": "opened: sure?",
}
"""Scripts of which each does what no page should do, and the words in which that is told."""


def test_what_no_page_should_do_is_noticed(browser, serve):
    context = browser.new_context()
    try:
        one = Visit(context, serve().url).goto()
        for script, noticed in NOTICED.items():
            assert not any(noticed in told for told in one.trouble), script
            one.page.evaluate(script)
            until(
                lambda noticed=noticed: (
                    one.page.evaluate("1") and any(noticed in told for told in one.trouble)
                ),
                script,
            )
    finally:
        context.close()
