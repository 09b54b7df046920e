"""The words of a notification: worth reading, and harmless whatever names and texts contain."""

from __future__ import annotations

import html

import pytest

from lockkit.alerts.notification import Reason
from lockkit.alerts.wording import REASONS, as_html, as_markdown, as_text, subject, subject_markdown
from support.notifications import SINCE, notification


def test_the_text_says_all_that_a_person_needs():
    told = notification(severity="P0", reason="escalated", step=1, times=3)

    assert as_text(told) == (
        "Nobody has acknowledged this, so it was raised to P0 (step 1).\n"
        "\n"
        "P0 gpu:0: 12 emergency releases of gpu:0 in an hour\n"
        "  Rule:   emergency_rate\n"
        "  Where:  namespace prod, host node3\n"
        "  Who:    ann@node3:4711\n"
        "  Next:   lockkit why gpu:0\n"
        "  Ack:    lockkit alerts ack f0\n"
        "  Alert:  f0, since 2025-11-27 19:00:00 UTC (12 min, seen 3 times)\n"
    )


def test_the_markdown_is_lists_and_code_only():
    assert as_markdown(notification()) == (
        "This is new.\n"
        "\n"
        "P1 gpu:0: 12 emergency releases of gpu:0 in an hour\n"
        "\n"
        "- Rule: emergency_rate\n"
        "- Where: namespace prod, host node3\n"
        "- Who: ann@node3:4711\n"
        "- Next: `lockkit why gpu:0`\n"
        "- Ack: `lockkit alerts ack f0`\n"
        "- Alert: f0, since 2025-11-27 19:00:00 UTC (12 min)\n"
    )


LINK = "https://locks.example/x/#/alerts?store=redis-1f2e3d4c&alert=f0"


@pytest.mark.parametrize(
    "form, told",
    [
        (as_text, f"  Page:   {LINK}\n"),
        (as_markdown, f"- Page: {LINK}\n"),
        (as_html, f'<a href="{html.escape(LINK)}">{html.escape(LINK)}</a>'),
    ],
)
def test_the_page_is_linked_where_its_address_is_known(form, told):
    assert told in form(notification(link=LINK))
    assert "Page" not in form(notification())


def test_what_is_over_or_acknowledged_needs_no_acknowledgement():
    assert "Ack:" not in as_text(notification(reason="all_resolved"))


def test_what_is_over_asks_for_nothing():
    told = notification(reason="all_resolved", severity="P0")

    assert subject(told).startswith("lockkit resolved: gpu:0")
    assert "Next" not in as_text(told)
    assert "Over:   since 2025-11-27 19:12:00 UTC" in as_text(told)
    assert "Alert:  f0, since 2025-11-27 19:00:00 UTC (12 min)" in as_text(told)


@pytest.mark.parametrize("reason", list(Reason.__args__))
def test_every_reason_has_words(reason):
    assert set(REASONS) == set(Reason.__args__)
    assert (
        as_text(notification(reason=reason, severity="P0", step=2)).partition("\n")[0].endswith((".", ")."))
    )


def test_who_acknowledged_it_is_said():
    told = notification()
    taken = told._replace(members=(told.members[0]._replace(acknowledged_by="bob"),))

    assert "Taken:  by bob" in as_text(taken)


def test_many_alerts_are_cut_and_counted():
    members = tuple(notification(number).members[0] for number in range(33))
    told = notification()._replace(members=members)

    assert subject(told).endswith("(and 32 more)")
    assert as_text(told).endswith("And 13 more: lockkit alerts list\n")
    assert as_text(told).count("Rule:") == 20


@pytest.mark.parametrize("form", [as_text, as_markdown, as_html, subject, subject_markdown])
def test_no_text_breaks_out(form):
    evil = "a\x1b[2J\r\nBcc: x@y\u202e<!channel><b>`code`"
    told = form(notification(labels={"lock": evil, "owner": evil, "x": evil}, text=evil, command=evil))

    assert "\x1b" not in told
    assert "\r" not in told
    assert "\u202e" not in told
    assert "\nBcc" not in told
    if form is not as_text and form is not subject:
        assert "<!channel>" not in told
        assert "<b>" not in told


def test_a_long_text_is_shortened_but_the_subject_keeps_its_number():
    told = notification(text="x" * 100_000)
    two = told._replace(members=told.members * 2)

    assert len(as_text(two)) < 3000
    assert len(subject(two)) == 160
    assert subject(two).endswith("(and 1 more)")


@pytest.mark.parametrize(
    "seconds, shown",
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d"), (-5, "0 s")],
)
def test_a_time_is_short(seconds, shown):
    assert f"({shown})" in as_text(notification(at=SINCE + seconds))


def test_without_labels_nothing_is_empty():
    told = as_text(notification(labels={}, command=""))

    assert all(line.split(":", 1)[-1].strip() for line in told.splitlines() if line.startswith("  "))
