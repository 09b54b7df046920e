"""The page follows the store by itself, and says so when it cannot."""

from __future__ import annotations

import re
import signal

import pytest

import lockkit
from lockkit.testing.processes import until
from support.servers.redis import RedisServer

expect = pytest.importorskip("playwright.sync_api").expect

CUT = r"Failed to load resource: net::ERR_|Failed to load resource: the server responded with a status of 50"
"""The browser's own messages about a server that does not answer, or says that its store does not."""

IMPATIENT = """
request_timeout = "1s"
[serve]
alerts = false
"""


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def status(page):
    return page.locator("#live")


def test_a_lock_that_is_taken_and_released_appears_and_goes_without_a_reload(visit, serve, client):
    page = visit(serve()).page
    expect(status(page)).to_have_text("Live")
    page.evaluate("window.loadedOnce = true")

    with client.lock("nightly").acquire(reason="full backup"):
        expect(row(page, "nightly")).to_contain_text("full backup")
    expect(row(page, "nightly")).to_have_count(0)

    assert page.evaluate("window.loadedOnce")


COUNTING = """
window.heard = 0;
window.EventSource = class extends EventSource {
    constructor(...given) {
        super(...given);
        this.addEventListener("change", () => { window.heard += 1; });
    }
};
"""


def test_news_come_by_the_stream_and_not_only_by_asking_now_and_then(visit, serve, client):
    """The page's clock is stopped, so nothing that it plans for over a second after the news is done."""

    def prepare(page):
        page.clock.install()
        page.add_init_script(COUNTING)

    page = visit(serve("--url", client.url), prepare=prepare).page
    expect(status(page)).to_have_text("Live")
    expect(page.get_by_role("main")).to_contain_text("Nobody holds a lock")
    page.clock.pause_at(page.evaluate("() => Date.now() + 2000"))
    heard = page.evaluate("() => window.heard")

    with client.lock("nightly").acquire():
        until(lambda: page.evaluate("() => window.heard") > heard, "the stream has told of it", 60.0)
        page.clock.run_for(1500)
        expect(row(page, "nightly")).to_be_visible()


def test_a_page_survives_a_restart_of_its_server(visit, serve, client):
    served = serve()
    with client.lock("before").acquire():
        one = visit(served)
        expect(row(one.page, "before")).to_be_visible()
        one.expected.append(CUT)

        served.end()
        expect(status(one.page)).to_contain_text(
            re.compile(r"Stale since \d\d:\d\d:\d\d (UTC|GMT|[A-Z]{3,5})")
        )
        expect(row(one.page, "before")).to_be_visible()

        with client.lock("meanwhile").acquire():
            served.start()
            expect(status(one.page)).to_have_text("Live")
            expect(row(one.page, "meanwhile")).to_be_visible()
        expect(row(one.page, "meanwhile")).to_have_count(0)


@pytest.fixture
def redis():
    with RedisServer() as server:
        yield server


def test_a_store_that_stops_answering_is_seen_and_so_is_that_it_answers_again(redis, visit, serve):
    with lockkit.connect(redis.url()) as client:
        lease = client.lock("held").acquire()
        one = visit(serve("--url", redis.url(), config=IMPATIENT))
        expect(row(one.page, "held")).to_be_visible()
        expect(status(one.page)).to_have_text("Live")
        one.expected.append(CUT)

        redis.pause()
        try:
            expect(status(one.page)).to_contain_text(
                re.compile(r"Stale since \d\d:\d\d:\d\d (UTC|GMT|[A-Z]{3,5})")
            )
            expect(row(one.page, "held")).to_be_visible()
        finally:
            redis.resume()

        expect(status(one.page)).to_have_text("Live")
        lease.release()
        expect(row(one.page, "held")).to_have_count(0)


def test_ages_stop_where_the_data_does(visit, serve, client):
    served = serve()
    with client.lock("held").acquire():
        one = visit(served, prepare=lambda page: page.clock.install())
        expect(row(one.page, "held")).to_be_visible()
        one.expected.append(CUT)

        served.end()
        one.page.clock.run_for(20_000)
        expect(status(one.page)).to_contain_text("Stale since")
        shown = row(one.page, "held").inner_text()
        one.page.clock.run_for(3_600_000)

        assert row(one.page, "held").inner_text() == shown


def test_a_page_whose_answer_is_late_is_not_called_live(visit, serve, client):
    """The stream of a server that is stopped stays open, and its answers do not come."""
    served = serve()
    one = visit(served, prepare=lambda page: page.clock.install())
    expect(status(one.page)).to_have_text("Live")
    one.expected.append(CUT)

    served.send(signal.SIGSTOP)
    try:
        until(
            lambda: one.page.clock.run_for(500) or "the answer is late" in status(one.page).inner_text(),
            "the page says that what it shows is old",
            60.0,
        )
        assert re.search(r"Stale since \d\d:\d\d:\d\d (UTC|GMT|[A-Z]{3,5})", status(one.page).inner_text())
    finally:
        served.send(signal.SIGCONT)
    expect(status(one.page)).to_have_text("Live")


def test_the_number_of_alerts_stays_while_the_server_does_not_answer(visit, serve, client):
    served = serve("--url", client.url, config="age_hard = '3ms'\nage_soft = '2ms'\nage_warning = '1ms'\n")
    with client.lock("held").acquire():
        one = visit(served, prepare=lambda page: page.clock.install())
        badge = one.page.get_by_role("navigation", name="Pages").locator(".badge")
        until(lambda: one.page.clock.run_for(16_000) or badge.is_visible(), "an alert is counted", 120.0)
        one.expected.append(CUT)

        served.end()
        one.page.clock.run_for(16_000)
        expect(status(one.page)).to_contain_text("Stale since")
        expect(badge).to_be_visible()
