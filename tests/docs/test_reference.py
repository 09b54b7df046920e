"""Names that the reference pages leave out, and rules of CONTRIBUTING."""

from __future__ import annotations

import ast
import inspect
import re


def skipper(root):
    """The function of docs/conf.py that leaves members out; importing all of it needs no Sphinx."""
    tree = ast.parse((root / "docs/conf.py").read_text())
    (found,) = (node for node in tree.body if getattr(node, "name", "") == "_skip_bare")
    scope = {"inspect": inspect}
    exec(compile(ast.Module([found], []), "conf.py", "exec"), scope)
    return lambda name, member: scope["_skip_bare"](None, "class", name, member, None, None)


def test_constructors_that_say_nothing_are_left_out_and_others_shown(root):
    skip = skipper(root)

    def bare(self, *args, **kwargs): ...
    def telling(self, name, *, ttl=3): ...

    assert skip("__init__", bare)
    assert not skip("__init__", telling)
    assert not skip("method", bare)


def test_contributing_brings_the_pip_that_knows_groups(root):
    text = (root / "CONTRIBUTING.md").read_text()

    assert re.search(r"pip install 'pip>=25\.1'.*pip install --group dev", text, re.DOTALL)
