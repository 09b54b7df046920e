"""Changes that a visitor may make: each asks first, says what it will do, and acts on what was seen."""

from __future__ import annotations

import threading

import pytest

import lockkit
from lockkit.testing.processes import until

expect = pytest.importorskip("playwright.sync_api").expect

REFUSED = r"Failed to load resource: the server responded with a status of 409"
"""The browser's own message about a change that is refused, because what was seen is no longer there."""


@pytest.fixture
def served(serve, client):
    return serve("--url", client.url, tokens=True)


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def ask_to(page, what, name):
    """Press the button of a lock's row; gives the dialog."""
    row(page, name).get_by_role("button", name=what).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def evicted(client, name):
    return [claim.evicted for claim in client.inspect(name).claims]


def test_a_holder_is_evicted_after_a_confirmation_that_says_what_will_happen(visit, served, client):
    page = visit(served, token="operate").page
    lease = client.lock("team/model").acquire(reason="train 12")

    dialog = ask_to(page, "Evict", "team/model")
    expect(dialog).to_contain_text("team/model")
    expect(dialog).to_contain_text(lease.claim_id)
    expect(dialog.get_by_role("listitem")).not_to_have_count(0)
    assert evicted(client, "team/model") == [False]
    dialog.get_by_label("Reason").fill("hung since midnight")
    dialog.get_by_role("button", name="Evict").click()

    expect(dialog).not_to_be_visible()
    expect(page.locator("#notices")).to_contain_text("evicted")
    assert lease.lost.wait(30)
    assert lease.lost_because == "evicted"
    lease.release(raise_failed=False)
    until(lambda: not client.inspect("team/model").claims)
    expect(row(page, "team/model")).to_have_count(0)


def test_nothing_is_evicted_without_a_reason_or_by_who_leaves_the_dialog(visit, served, client):
    page = visit(served, token="operate").page
    with client.lock("x").acquire():
        dialog = ask_to(page, "Evict", "x")
        dialog.get_by_role("button", name="Evict").click()
        expect(dialog).to_be_visible()  # the browser asks for the field that is required

        dialog.get_by_role("button", name="Leave it").click()

        expect(dialog).to_have_count(0)
        assert evicted(client, "x") == [False]


@pytest.mark.parametrize("what,word", [("Evict", "Evict"), ("Ask to release", "Ask to release")])
def test_the_successor_of_the_claim_that_was_seen_is_left_alone_and_named(visit, served, client, what, word):
    one = visit(served, token="operate")
    one.expected.append(REFUSED)
    lease = client.lock("x").acquire()
    dialog = ask_to(one.page, what, "x")
    lease.release()
    successor = client.lock("x").acquire()

    dialog.get_by_label("Reason").fill("hung")
    dialog.get_by_role("button", name=word).click()

    expect(dialog.get_by_role("alert")).to_contain_text(successor.claim_id)
    assert evicted(client, "x") == [False]
    assert client.inspect("x").claims[0].release_requests == ()
    successor.release()


def test_a_claim_that_has_gone_before_the_dialog_opens_is_told_in_words(visit, served, client):
    one = visit(served, token="operate")
    one.expected.append(REFUSED)
    lease = client.lock("x").acquire()
    button = row(one.page, "x").get_by_role("button", name="Evict")
    expect(button).to_be_visible()
    # The page must not learn of the release before the click: its questions get no answer.
    one.page.route(lambda url: "/api/locks" in url, lambda _: None)
    lease.release()
    with client.lock("x").acquire():
        button.click()

        expect(one.page.locator("#notices")).not_to_be_empty()
        expect(one.page.get_by_role("dialog")).to_have_count(0)


def test_a_holder_is_asked_and_the_page_shows_that_it_was(visit, served, client):
    page = visit(served, token="operate").page
    with client.lock("a/b").acquire() as lease:
        dialog = ask_to(page, "Ask to release", "a/b")
        dialog.get_by_label("Reason").fill("needed for the demo")
        dialog.get_by_role("button", name="Ask to release").click()

        expect(row(page, "a/b")).to_contain_text("asks to release: needed for the demo (operateer)")
        (request,) = client.inspect("a/b").claims[0].release_requests
        assert request.reason == "needed for the demo (operateer)"
        lease.ensure_held()


@pytest.mark.parametrize("scope,count", [("operate", 0), ("admin", 1)])
def test_only_an_admin_is_offered_to_evict_at_once(visit, served, client, scope, count):
    page = visit(served, token=scope).page
    with client.lock("x").acquire():
        dialog = ask_to(page, "Evict", "x")

        expect(dialog.get_by_role("checkbox")).to_have_count(count)


def test_an_eviction_at_once_says_that_two_may_work_and_gives_the_lock_away(visit, served, client):
    page = visit(served, token="admin").page
    lease = client.lock("x").acquire()
    told, granted = threading.Event(), threading.Event()

    def wait():
        with (
            lockkit.connect(client.url, state_dir=client.config.state_dir) as other,
            other.lock("x").acquire(timeout=60, on_wait=lambda _: told.set()),
        ):
            granted.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert told.wait(30)

    dialog = ask_to(page, "Evict", "x")
    before = dialog.get_by_role("listitem").all_inner_texts()
    dialog.get_by_role("checkbox").check()
    expect(dialog.get_by_role("listitem").first).not_to_have_text(before[0])
    dialog.get_by_label("Reason").fill("its host burns")
    dialog.get_by_role("button", name="Evict").click()

    assert granted.wait(30)
    waiter.join()
    expect(page.locator("#notices")).to_contain_text("removed")
    lease.release(raise_failed=False)


def choose(page, *names):
    for name in names:
        page.get_by_role("checkbox", name=f"Choose {name}", exact=True).check()


def test_several_locks_are_evicted_with_one_confirmation_that_lists_them(visit, served, client):
    page = visit(served, token="operate").page
    leases = {name: client.lock(name).acquire() for name in ("a", "b", "c")}
    bar = page.get_by_role("group", name="Chosen locks")
    expect(row(page, "c")).to_be_visible()
    expect(bar).not_to_be_visible()

    choose(page, "a", "b")
    expect(bar).to_contain_text("2 chosen")
    bar.get_by_role("button", name="Evict").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Evict 2 claims?")
    for name in ("a", "b"):
        expect(dialog).to_contain_text(f"claim {leases[name].claim_id} of {name}:")
    expect(dialog).not_to_contain_text(leases["c"].claim_id)
    assert evicted(client, "a") == [False]
    dialog.get_by_label("Reason").fill("maintenance")
    dialog.get_by_role("button", name="Evict").click()

    expect(dialog).not_to_be_visible()
    for name in ("a", "b"):
        assert leases[name].lost.wait(30)
        leases[name].release(raise_failed=False)
    assert evicted(client, "c") == [False]
    leases["c"].release()


def test_of_several_the_one_that_has_changed_is_named_and_the_others_are_asked(visit, served, client):
    one = visit(served, token="operate")
    page = one.page
    asked = []
    stays = client.lock("stays").acquire()
    stays.on_release_requested(lambda request: asked.append(request.reason))
    goes = client.lock("goes").acquire()
    choose(page, "stays", "goes")
    page.get_by_role("group", name="Chosen locks").get_by_role("button", name="Ask to release").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(goes.claim_id)
    one.expected.append(REFUSED)

    goes.release()
    dialog.get_by_label("Reason").fill("maintenance")
    dialog.get_by_role("button", name="Ask to release").click()

    expect(dialog.get_by_role("alert")).to_contain_text("For goes: ")
    expect(dialog.get_by_role("alert")).not_to_contain_text("stays")
    until(lambda: asked, "the holder hears of it", 60.0)
    dialog.get_by_role("button", name="Leave it").click()
    stays.release()


def test_what_is_chosen_is_only_what_is_shown_and_those_who_may_only_look_choose_nothing(
    visit, served, client
):
    with client.lock("a").acquire(), client.lock("b").acquire():
        page = visit(served, token="operate").page
        bar = page.get_by_role("group", name="Chosen locks")
        choose(page, "a", "b")
        page.get_by_label("Filter", exact=True).fill("b")
        expect(row(page, "a")).to_have_count(0)
        expect(bar).to_contain_text("1 chosen")
        page.get_by_label("Filter", exact=True).fill("")
        expect(page.get_by_role("checkbox", name="Choose a", exact=True)).not_to_be_checked()
        page.get_by_role("checkbox", name="Choose b", exact=True).uncheck()
        expect(bar).not_to_be_visible()

        other = visit(served, token="view").page
        expect(row(other, "a")).to_be_visible()
        expect(other.get_by_role("checkbox")).to_have_count(0)
