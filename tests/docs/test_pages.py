"""Every example on a page runs, and the README's tour."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md") if "{doctest}" in path.read_text()
)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As the documentation's own build runs them: an empty state folder, no configuration."""
    for name in ("LOCKKIT_URL", "LOCKKIT_NAMESPACE", "LOCKKIT_PROFILE", "LOCKKIT_TTL", "LOCKKIT_SCOPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCKKIT_CONFIG", "/dev/null")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(state))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, fresh):
    """Also as somebody types them: a name that the page does not import is not there."""
    blocks = re.findall(r"^```\{doctest\}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page, page, 0)
    told = []

    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL, verbose=False).run(
        examples, out=told.append
    )

    assert not told, "".join(told)


def test_every_python_example_is_one_that_runs(pages):
    """A block that is not executed may only show a signature."""
    idle = [
        (page, code)
        for page, text in pages.items()
        if page.startswith("docs/")
        for code in re.findall(r"^```(?:python|py|pycon)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        if not re.fullmatch(r"lockkit_\w+\([^\n]*\) -> [^\n]*\n", code)
    ]

    assert idle == []


def test_the_tour_of_the_readme_runs(program, root):
    tour = re.search(r"^```python\n(.*?)^```", (root / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]

    done = program(tour)

    assert 15 <= len(tour.splitlines()) <= 25
    expected = [line.partition("  # ")[2] for line in tour.splitlines() if line.lstrip().startswith("print(")]
    assert done.stdout.splitlines() == expected
    assert "Warning" not in done.stderr
