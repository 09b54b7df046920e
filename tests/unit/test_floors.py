"""No two files import each other, even indirectly or inside functions; annotations do not count."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

from lockkit import hooks
from lockkit.gpu.plugin import OFFERED

PACKAGES = [
    "lockkit",
    "lockkit_etcd",
    "lockkit_etcd3",
    "lockkit_memory",
    "lockkit_redis",
    "lockkit_sqlite",
    "lockkit_zookeeper",
]


def files_of(package: str) -> dict[str, Path]:
    """Every module of a package, by name."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    top = Path(spec.origin).parent
    names = {
        path: ".".join((package, *path.relative_to(top).with_suffix("").parts)) for path in top.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def runtime(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield from runtime(other)
        else:
            yield child
            yield from runtime(child)


def imports(source: str, known: set[str]) -> set[str]:
    """The known modules that a source imports."""
    found: set[str] = set()
    for node in runtime(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return found & known


def circle(sources: dict[str, str]) -> list[str]:
    """The modules of a circle, if there is one."""
    graph = {name: imports(source, set(sources)) - {name} for name, source in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_files_import_each_other(package):
    assert circle({name: path.read_text() for name, path in files_of(package).items()}) == []


def test_a_circle_is_seen():
    late = "def use():\n    from a.one import thing"
    assert set(circle({"a.one": "import a.two", "a.two": late})) == {"a.one", "a.two"}
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a.one"
    assert circle({"a.one": "import a.two", "a.two": typed}) == []


def named(source: str) -> set[str]:
    """Every module that a source imports, or imports names from, also for annotations alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return found


def of_gpus(module: str) -> bool:
    return f"{module}.".startswith("lockkit.gpu.")


def test_only_users_of_gpus_import_them_also_for_annotations():
    users = ("lockkit.gpu", "lockkit.integrations.")
    others = {
        name: path.read_text() for name, path in files_of("lockkit").items() if not name.startswith(users)
    }
    assert len(others) > 300
    assert [name for name, source in others.items() if any(map(of_gpus, named(source)))] == []
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lockkit import gpu"
    assert any(map(of_gpus, named(typed)))


def test_what_is_asked_of_gpus_is_what_they_offer():
    sources = [path.read_text() for path in files_of("lockkit").values()]
    asked = {name for source in sources for name in re.findall(r'of_gpus\("(\w+)"\)', source)}
    assert asked == {*OFFERED, "lockkit_commands"}
    assert all(callable(hooks.of_gpus(name)) for name in asked)
