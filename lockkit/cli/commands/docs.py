"""``lockkit docs``: the documentation, as it was installed with lockkit."""

from __future__ import annotations

import sys

import click

from lockkit.cli import guessing, output, pager, topics
from lockkit.cli.base import Session
from lockkit.cli.base import command as make

__all__ = ["command"]


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [topic for topic in topics.topics() if topic.startswith(incomplete)]


@make(
    "docs",
    examples="""
lockkit docs                   # the topics
lockkit docs all-users         # one page
lockkit docs redis | less
""",
)
@click.argument("topic", required=False, shell_complete=_complete)
@click.pass_context
def command(ctx: click.Context, /, session: Session, topic: str | None) -> None:
    """Show the page of TOPIC, or list all topics.

    The pages are those of the installed version. On a terminal a long page is shown by $PAGER, or by less.
    """
    known = topics.topics()
    if topic is None:
        _list(session)
        return
    if topic not in known:
        near = topics.near(topic)
        if near:
            guessing.keep(ctx, ["docs", near[0]])
        ctx.fail(f"there is no topic {topic!r}" + ("" if near else "; to list the topics: lockkit docs"))
    text = topics.text(topic)
    if session.json:
        from lockkit.cli import documents

        page = documents.Page(topic=topic, title=known[topic].title, text=text)
        output.write_json(page, indent=True)
    else:
        pager.show(text)


def _list(session: Session) -> None:
    known = topics.topics()
    if session.json:
        from lockkit.cli import documents, parts

        found = [parts.Topic(topic=name, title=topic.title) for name, topic in known.items()]
        output.write_json(documents.Topics(topics=found), indent=True)
    else:
        width = max(map(len, known)) + 2
        sys.stdout.writelines(f"{name:<{width}}{topic.title}\n" for name, topic in known.items())
