"""Commands in alerts: shown to be pasted into a shell, so each is exact, or it is not shown.

Names come from other users. A name is one word of the command, quoted so that neither a shell nor a markup (Markdown, HTML, Slack's
mentions) finds anything in it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from lockkit.config.suggesting import quoted

__all__ = ["command_of", "in_markdown", "shown"]

_LONGEST = 500
"""Characters of a command that are shown; a longer one is left out, because a part of a command is another command."""
_WORD = re.compile(r"\{(\w+)\}")
_MARKUP = "`<>&"
"""The characters that a markup may change, also within code: Slack reads ``&lt;`` and ``<!channel>`` there."""


def command_of(template: str, words: Mapping[str, str]) -> str:
    """The command of a rule with the words in braces filled in, ready for bash; empty if that is not possible.

    Args:
        template: The command, as the rule has it.
        words: The words, as they are: any text.
    """
    told, end = "", 0
    for found in _WORD.finditer(template):
        value = words.get(found[1])
        before = template[end : found.start()]
        if not value or not _outside_quotes(template[: found.start()]):
            return ""  # within quotes of the template the quotes of the value would end them
        told += before
        if value.startswith("-") and told[-1:].isspace():
            # A value that begins like an option needs --, behind which there are no options.
            if told.split()[-1].startswith("-") or " -" in template[found.end() :]:
                return ""
            told += "-- "
        told += quoted(value, besides=_MARKUP)
        end = found.end()
    return told + template[end:]


def shown(command: str) -> str:
    """The command, if it can be shown as it is; otherwise an empty text."""
    return command if command.isprintable() and len(command) <= _LONGEST else ""


def in_markdown(command: str) -> bool:
    """Whether a command stays as it is as code in Markdown."""
    return not any(char in command for char in "`<>") and not re.search(r"&#?\w+;", command)


def _outside_quotes(start: str) -> bool:
    try:
        shlex.split(start)
    except ValueError:
        return False
    return True
