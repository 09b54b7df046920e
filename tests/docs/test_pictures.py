"""The pictures of the pages: as new as the code that draws them, legible, and described in words."""

from __future__ import annotations

import re
import shlex
import struct
import sys
import xml.etree.ElementTree as ET

import click
import pytest

from lockkit.cli.main import cli
from support.pages import DOCS

PICTURES = DOCS / "pictures"
FILES = sorted(path.name for path in PICTURES.glob("*.svg"))
SCREENSHOTS = sorted(path.name for path in PICTURES.glob("*.png"))


@pytest.fixture(scope="module")
def drawing():
    """The code that draws, as `python docs/pictures.py` finds it."""
    before = set(sys.modules)
    sys.path.insert(0, str(DOCS))
    try:
        import pictures
        from drawing import figures, terminal

        yield pictures, figures, terminal
    finally:
        sys.path.remove(str(DOCS))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("pictures", "drawing"):
                del sys.modules[name]


def test_every_picture_is_as_the_code_draws_it(drawing):
    drawn = drawing[0].pictures()

    assert sorted(drawn) == FILES
    assert [name for name in FILES if (PICTURES / name).read_text() != drawn[name]] == [], (
        "run: python docs/pictures.py"
    )


def test_no_text_runs_into_another_or_out_of_the_picture(drawing):
    for name, draw in drawing[1].FIGURES.items():
        picture = draw()
        for at, one in enumerate(picture.written):
            assert one.left >= 12, (name, one)
            assert one.right <= picture.width - 12, (name, one)
            assert one.bottom <= picture.height - 6, (name, one)
            for other in picture.written[at + 1 :]:
                beside = one.right <= other.left or other.right <= one.left
                assert beside or one.bottom <= other.top or other.bottom <= one.top, (name, one, other)


@pytest.mark.parametrize("name", FILES)
def test_a_picture_says_in_words_what_it_shows_and_asks_nobody_for_anything(name):
    text = (PICTURES / name).read_text()
    tree = ET.fromstring(text)
    svg = "{http://www.w3.org/2000/svg}"

    assert len(tree.find(f"{svg}title").text) > 10
    assert len(tree.find(f"{svg}desc").text) > 100
    assert tree.findall(f".//{svg}text")
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_every_picture_is_on_a_page_with_a_text_in_its_place(pages):
    shown = {
        target.rpartition("/")[2]
        for text in pages.values()
        for target in re.findall(r"!\[[^\]]{20,}\]\(([^)\s]+\.(?:svg|png))\)", text)
    }

    assert shown == {*FILES, *SCREENSHOTS}


def test_every_screenshot_is_one_that_a_command_takes_and_is_small(drawing):
    from drawing.dashboard import SHOTS

    assert sorted(SHOTS) == SCREENSHOTS, "run: python docs/pictures.py --dashboard"
    for name, shot in SHOTS.items():
        data = (PICTURES / name).read_bytes()
        assert struct.unpack(">II", data[16:24]) == (1200, shot.height), (
            "run: python docs/pictures.py --dashboard"
        )
        assert len(data) < 150_000, name


def test_every_command_in_a_picture_exists(drawing):
    lines = [
        one.words
        for draw in drawing[1].FIGURES.values()
        for one in draw().written
        if one.words.startswith("lockkit ")
    ]

    assert len(lines) >= 4
    for line in lines:
        found, words = cli, shlex.split(line)[1:]
        while words and isinstance(found, click.Group):
            found, words = found.get_command(None, words[0]), words[1:]
        assert found is not None, line
        known = {opt for param in found.params for opt in param.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_the_recording_shows_the_demo_as_it_is(drawing):
    pictures, _, terminal = drawing
    kept = terminal.Recording.from_cast(pictures.CAST.read_text())

    assert told(terminal, pictures.recorded()) == told(terminal, kept), (
        "run: python docs/pictures.py --record"
    )


def told(terminal, recording):
    """The sentences of a recording, without what differs from run to run: figures, and whose turn it is."""
    rows = {re.sub(r"\d+", "N", row.text).strip() for row in terminal.rows(recording)}
    return {re.sub(r"^N\.N s +\w+", "WHO", row) for row in rows if not re.match(r"\w+ +[█░·]|N s ", row)}


def test_a_terminal_code_that_the_renderer_does_not_know_is_refused(drawing):
    terminal = drawing[2]

    with pytest.raises(ValueError, match="does not know"):
        list(terminal.rows(terminal.Recording("x", [(0.0, "a\x1b[2Jb\r\n")])))
