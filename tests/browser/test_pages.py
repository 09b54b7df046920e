"""Each page of the dashboard, opened and clicked."""

from __future__ import annotations

import os
import re

import pytest

from lockkit.observe import journal
from support.receivers import Answer, receiver

expect = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture
def page(visit, demo):
    """The first page of the demo, for a visitor who may operate."""
    found = visit(demo, token="operate").page
    expect(found.locator("#live")).to_have_text("Live")
    return found


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader").filter(has_text=name))


def test_the_first_screen_says_who_blocks_whom_now(page):
    summary = page.get_by_role("list", name="Summary")
    longest = summary.get_by_role("listitem").filter(has_text="Longest wait")
    contended = summary.get_by_role("listitem").filter(has_text="Most contended")

    expect(longest).to_contain_text(re.compile(r"Longest wait\d\d min"))
    expect(longest).to_contain_text(re.compile(r"bob@node2 waits; held by ann@node1 for \d\d min"))
    expect(contended).to_contain_text("4 wait")
    expect(contended).to_contain_text("held by ann@node1")
    for card in (longest, contended):
        expect(card.get_by_role("link", name="db/migrate")).to_be_visible()


def test_a_row_has_holder_reason_progress_age_ttl_and_queue(page):
    one = row(page, "db/migrate")

    for text in ("ann@node1", "alembic", "schema 41", "63 % · 12 of 19 tables", "4", "bob@node2"):
        expect(one).to_contain_text(text)
    expect(one).to_contain_text(re.compile(r"\d\d min"))
    expect(one.locator(".bar.ttl")).to_be_visible()
    width = one.locator(".bar.ttl .fill").evaluate("(fill) => fill.getBoundingClientRect().width")
    assert width > 0
    expect(row(page, "licences/matlab")).to_contain_text("3 of 3 held")
    expect(row(page, "index/products")).to_contain_text("2 readers")


def test_the_order_and_the_choice_of_locks(page):
    own = page.get_by_role("table", name="Locks with their holders and queues")
    names = own.get_by_role("rowheader").get_by_role("link")
    expect(names.first).to_have_text("db/migrate")

    page.get_by_label("Sort by").select_option("name")
    expect(names.last).to_have_text("report/month-end")
    page.get_by_label("Filter", exact=True).fill("*/ma*")
    expect(names).to_have_text(["licences/matlab"])
    page.get_by_label("Filter", exact=True).fill("")
    expect(names.last).to_have_text("report/month-end")
    page.go_back()
    expect(names.first).to_have_text("db/migrate")


def test_the_page_of_one_lock_has_its_queue_and_its_past(page):
    row(page, "db/migrate").get_by_role("link", name="db/migrate", exact=True).click()

    expect(page.get_by_role("heading", level=1)).to_have_text("db/migrate")
    expect(page.get_by_role("region", name="Holders")).to_contain_text("schema 41")
    queue = page.get_by_role("region", name="Queue")
    for waiter in ("bob@node2", "ci@runner3", "ci@runner4", "eve@node5"):
        expect(queue).to_contain_text(waiter)
    past = page.get_by_role("region", name="Timeline")
    expect(past).to_contain_text("in the last hour")
    count = past.locator("svg .hold").count()
    past.get_by_label("Show").select_option("the last 6 hours")
    expect(past).to_contain_text("9 holds of 4 users in the last 6 hours")
    expect(past.locator("svg .hold")).to_have_count(9)
    assert count < 9
    past.get_by_text("The same as a table").click()
    expect(past.get_by_role("row").filter(has_text="bob@node2")).to_contain_text("lost")

    page.get_by_role("link", name="All locks").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Who blocks whom now")


def test_a_late_answer_about_a_shorter_time_does_not_replace_the_one_that_was_asked_for_last(page):
    late = []
    page.route(
        lambda url: "/api/history" in url, lambda route: route.continue_() if late else late.append(route)
    )
    row(page, "db/migrate").get_by_role("link", name="db/migrate", exact=True).click()
    past = page.get_by_role("region", name="Timeline")
    expect(past).to_contain_text("in the last hour")
    past.get_by_label("Show").select_option("the last 6 hours")
    expect(past).to_contain_text("9 holds of 4 users in the last 6 hours")

    with page.expect_response(lambda answer: "/api/history" in answer.url) as answer:
        late[0].continue_()
    answer.value.finished()
    page.evaluate("fetch('livez').then((answer) => answer.text())")  # by now the page has read the late one
    assert "9 holds of 4 users in the last 6 hours" in past.inner_text()


def test_a_lock_that_is_free_has_a_page_too(visit, demo):
    page = visit(demo, "#/lock?name=db%2Fmigrat", token="view").page

    expect(page.get_by_role("main")).to_contain_text("Nobody holds this lock")
    expect(page.get_by_role("main").get_by_role("link", name="db/migrate")).to_be_visible()


def test_the_gpus_with_their_holders_memory_and_faults(page):
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="GPUs").click()

    cards = page.get_by_role("article")
    expect(cards).to_have_count(4)
    whole, shared, unmanaged, faulty = (cards.nth(at) for at in range(4))
    for text in ("GPU 0", "held", "train 12", "20 GiB of", "97 %"):
        expect(whole).to_contain_text(text)
    for text in ("shared", "notebook", "8 GiB declared, 6 GiB used", "41 %"):
        expect(shared).to_contain_text(text)
    expect(unmanaged).to_contain_text("Used without a lock by bob")
    expect(faulty.get_by_text("the card must be reset")).to_have_text("the card must be reset")  # once


def test_a_gpu_is_quarantined_after_a_confirmation(visit, serve, client):
    served = serve("--url", client.url, tokens=True, LOCKKIT_GPU_SIMULATE="2", LOCKKIT_GPU_HOST="box")
    page = visit(served, "#/gpus", token="operate").page
    card = page.get_by_role("article").filter(has_text="GPU 1")

    card.get_by_role("button", name="Quarantine").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("lockkit gpu clear")
    dialog.get_by_label("Reason").fill("its fan rattles")
    dialog.get_by_role("button", name="Quarantine").click()

    expect(card.locator(".pill")).to_have_text("quarantined")
    expect(card).to_contain_text(f"quarantined by operateer@{os.uname().nodename}: its fan rattles")
    expect(card.get_by_role("button", name="Quarantine")).to_have_count(0)


RULES = """
age_hard = "100ms"
age_soft = "90ms"
age_warning = "80ms"
[alerts]
group_wait = "1s"
group_interval = "1s"
look_every = "1s"
"""


def test_an_alert_is_acknowledged_and_silenced_and_both_are_taken_back(visit, serve, client):
    with client.lock("nightly").acquire():
        page = visit(serve("--url", client.url, tokens=True, config=RULES), "#/alerts", token="operate").page
        card = page.get_by_role("article").filter(has_text="old_hold").filter(has_text="nightly")
        expect(card).to_be_visible()
        expect(card.get_by_role("link", name="nightly")).to_be_visible()

        card.get_by_role("button", name="Acknowledge").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Acknowledge").click()
        expect(card).to_contain_text("operateer deals with it")

        card.get_by_role("button", name="Silence").click()
        dialog.get_by_label("For").select_option("4 hours")
        dialog.get_by_label("Comment").fill("known")
        dialog.get_by_role("button", name="Silence").click()
        expect(card).to_contain_text("silenced")
        silences = page.get_by_role("region", name="Silences")
        expect(silences).to_contain_text("by operateer: known")

        silences.get_by_role("button", name="End").click()
        dialog.get_by_role("button", name="End it").click()
        expect(silences).not_to_be_visible()
        card.get_by_role("button", name="Nobody deals with it").click()
        dialog.get_by_role("button", name="Take it back").click()
        expect(card).not_to_contain_text("deals with it,")
        expect(card.get_by_role("button", name="Acknowledge")).to_be_visible()


def test_the_link_in_a_notification_leads_to_the_alert(visit, serve, client):
    config = f"""{RULES}
[alerts.channels.chat]
type = "pagerduty"
url = "%s"
key = "env:KEY"
[serve]
public_url = "https://locks.example/x/"
"""
    with receiver(Answer(202)) as chat, client.lock("nightly").acquire():
        served = serve("--url", client.url, tokens=True, config=config % chat.url, KEY="k" * 32)
        (told,) = chat.wait(1)
        link = told.json["payload"]["custom_details"]["alerts"][0]["page"]
        assert link.startswith("https://locks.example/x/#/alerts?")
        text = told.json["payload"]["custom_details"]["text"]
        begun = re.search(r"Alert:  \w+, since ([-\d]+ [:\d]+ UTC)", text)[1]
        held = re.search(r"nightly has been held for .* \(since ([-\d]+ [:\d]+ UTC)\)", text)[1]
        one = visit(
            served,
            link.removeprefix("https://locks.example/x/"),
            token="view",
            timezone_id="Asia/Tokyo",  # a browser elsewhere shows the same times
        )
        card = one.page.get_by_role("article").filter(has_text="nightly")
        expect(card).to_be_focused()
        expect(card).to_have_attribute("aria-current", "true")
        expect(card).to_contain_text(f"since {begun}")
        expect(card).to_contain_text(f"(since {held})")

        one.goto(f"{link.removeprefix('https://locks.example/x/')}0")
        expect(one.page.get_by_role("main")).to_contain_text("0 is over.")
        expect(card).not_to_have_attribute("aria-current", "true")


def test_locks_of_pools_and_of_lockkit_itself_stand_apart(visit, serve, client):
    with (
        client.lock("@alerts").acquire(),
        client.pool("cards", ["0"]).acquire(),
        client.lock("nightly").acquire(),
    ):
        page = visit(serve("--url", client.url)).page
        own = page.get_by_role("table", name="Locks with their holders and queues")
        others = page.get_by_role("table", name="Pools, and locks of lockkit itself")
        expect(own.get_by_role("rowheader")).to_contain_text(["nightly"])
        expect(others.get_by_role("rowheader")).to_contain_text(["@alerts", "cards: 0"])
        expect(page.get_by_role("heading", name="Pools, and locks of lockkit itself")).to_be_visible()

        page.get_by_label("Filter", exact=True).fill("night")
        expect(page.get_by_role("heading", name="Pools, and locks of lockkit itself")).not_to_be_visible()
        expect(own.get_by_role("rowheader")).to_contain_text(["nightly"])


def test_the_past_of_all_locks_is_searched(page):
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="History").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("History")
    page.get_by_label("Show").select_option("the last 7 days")
    rows = page.get_by_role("row")
    expect(rows.filter(has_text="bob@")).not_to_have_count(0)
    expect(rows.filter(has_text="ann@")).not_to_have_count(0)

    page.get_by_label("Search").fill("MIGRATE  ann@")
    expect(rows.filter(has_text="bob@")).to_have_count(0)
    expect(rows.filter(has_text="ann@")).not_to_have_count(0)
    page.reload()
    expect(page.get_by_label("Search")).to_have_value("MIGRATE  ann@")
    expect(rows.filter(has_text="ann@")).not_to_have_count(0)

    rows.filter(has_text="ann@").first.get_by_role("link", name="db/migrate").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("db/migrate")
    page.go_back()
    page.get_by_label("Search").fill("nobody was ever called so")
    expect(page.get_by_role("main")).to_contain_text("The journals have no such hold.")


def test_each_reason_of_the_health_can_be_read(visit, serve, client):
    with client.lock("one").acquire(), client.lock("two").acquire(), client.lock("three").acquire():
        page = visit(serve("--url", client.url, config=RULES)).page
        health = page.get_by_role("list", name="Summary").get_by_role("listitem").filter(has_text="Health")
        health.get_by_text("2 more reasons").click()
        for name in ("'one'", "'two'", "'three'"):
            expect(health.get_by_text(name)).to_be_visible()


def test_a_release_that_failed_and_one_that_is_resolved(visit, serve, client):
    served = serve("--url", client.url)
    same = {"url": client.url, "namespace": client.namespace, "kind": "critical_failure"}
    open_, over = (
        journal.append(served.state, {**same, "name": name, "error": "no answer"})
        for name in ("open", "over")
    )
    journal.resolve(served.state, over, "ann")

    page = visit(served, "#/failures").page
    cards = page.get_by_role("article")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text(f"lockkit failures resolve {open_}")
    cards.get_by_text("What was recorded").click()
    expect(cards).to_contain_text("no answer")
    page.get_by_label("Show those that are resolved").check()
    expect(cards).to_have_count(2)
    expect(cards.filter(has_text="over")).to_contain_text("resolved by ann")


def test_pages_without_anything_say_so(visit, serve):
    page = visit(serve()).page
    expect(page.get_by_role("main")).to_contain_text("Nobody holds a lock")

    for name, words in {
        "GPUs": "no GPU",
        "Alerts": "Nothing is wrong",
        "Failures": "No release failed",
    }.items():
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.get_by_role("main")).to_contain_text(words)
        assert page.title().startswith(name)


def test_the_colours_follow_the_system_until_the_visitor_chooses(visit, demo):
    page = visit(demo, token="view", color_scheme="dark").page

    def dark():
        return page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 26)"

    assert dark()
    page.get_by_role("button", name="Theme").click()
    assert not dark()
    page.reload()
    assert not dark()


def test_several_stores_are_chosen_between(visit, serve, client, tmp_path):
    other = f"sqlite:{tmp_path}/other.db"
    page = visit(serve("--url", client.url, "--url", other)).page
    with client.lock("here").acquire():
        expect(row(page, "here")).to_be_visible()

        page.get_by_label("Store").select_option(index=1)
        expect(row(page, "here")).to_have_count(0)
        page.reload()
        expect(page.get_by_role("main")).to_contain_text("Nobody holds a lock")
        page.get_by_label("Store").select_option(index=0)
        expect(row(page, "here")).to_be_visible()
