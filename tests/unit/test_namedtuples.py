"""``lockkit.lib.namedtuples``: as in typing, which makes the same classes for the comparison."""

import ast
import copy
import inspect
import pickle
import sys
import types
import typing
from pathlib import Path

import pytest

import lockkit
from lockkit import facts
from lockkit.lib import namedtuples
from lockkit.lib.namedtuples import NamedTuple
from lockkit.protocol import effects
from lockkit.store import spi


class Ours(NamedTuple):
    """Two fields."""

    first: int
    second: str = "two"

    @property
    def both(self) -> str:
        return f"{self.first} {self.second}"


class Theirs(typing.NamedTuple):
    """Two fields."""

    first: int
    second: str = "two"


@pytest.fixture(params=[Ours, Theirs])
def made(request):
    return request.param


def test_it_is_a_tuple_with_names(made):
    one = made(1)

    assert one == (1, "two") == made(first=1, second="two")
    assert (one.first, one.second) == (1, "two")
    assert repr(one) == f"{made.__name__}(first=1, second='two')"
    assert one._asdict() == {"first": 1, "second": "two"}
    assert not hasattr(one, "__dict__")
    assert type(made) is type
    match one:
        case made(first, second):
            assert (first, second) == (1, "two")


def test_it_is_described(made):
    assert made._fields == made.__match_args__ == ("first", "second")
    assert made._field_defaults == {"second": "two"}
    assert str(inspect.signature(made)) == "(first: int, second: str = 'two')"
    assert made.second.__doc__ == "Alias for field number 1"
    assert typing.get_type_hints(made) == {"first": int, "second": str}


def test_a_changed_copy(made):
    assert made(1)._replace(second="2") == (1, "2")
    assert made._make([3, "4"]) == (3, "4")
    with pytest.raises((ValueError, TypeError), match="third"):  # typing's: by the version of Python
        made(1)._replace(third=3)
    with pytest.raises(TypeError, match="Expected 2 arguments, got 1"):
        made._make([3])


def test_the_wrong_arguments(made):
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'first'"):
        made()
    with pytest.raises(TypeError, match="third"):
        made(1, third=3)
    with pytest.raises(AttributeError):
        made(1).first = 2


def test_it_is_copied_and_pickled(made):
    for there in (copy.copy(made(1)), copy.deepcopy(made(1)), pickle.loads(pickle.dumps(made(1)))):
        assert type(there) is made
        assert there == (1, "two")


def test_its_own_methods():
    assert Ours(1).both == "1 two"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="typing's own there")
def test_the_constructor_is_made_when_it_is_looked_up():
    class Late(NamedTuple):
        """One field."""

        only: int

    assert not isinstance(vars(Late)["__new__"], staticmethod)
    assert Late(1) == (1,)
    assert isinstance(vars(Late)["__new__"], staticmethod)


@pytest.mark.parametrize("module", [facts, effects, spi], ids=lambda module: module.__name__)
def test_what_import_lockkit_makes_is_made_so(module):
    """Break it by importing ``NamedTuple`` from typing in one of them."""
    classes = [one for one in vars(module).values() if isinstance(one, type) and hasattr(one, "_fields")]

    assert len(classes) >= 10
    assert {one.__mro__[1].__module__ for one in classes} <= {"lockkit.lib.namedtuples"}


def test_one_that_is_made_of_its_fields_is_like_one_that_is_called_for():
    quick = namedtuples.made(Ours, (1, "one"))

    assert type(quick) is Ours
    assert quick == Ours(1, "one")
    assert quick.both == "1 one"


def test_whatever_is_made_of_its_fields_is_given_all_of_them():
    """A type checker would accept one without a field that has a default; its tuple would be too short."""
    root = Path(lockkit.__file__).parents[1]
    found = 0
    for package in (*root.glob("lockkit*"), *root.glob("backends/lockkit*")):
        for path in package.rglob("*.py"):
            text = path.read_text()
            if "import made" not in text:
                continue
            name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            names = vars(pytest.importorskip(name))
            for call in ast.walk(ast.parse(text)):
                if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "made":
                    kind, fields = call.args
                    # A removal is of one of three classes, which a variable names. They have the same fields.
                    cls = names["EmergencyRelease" if kind.id == "remove" else kind.id]
                    assert len(fields.elts) == len(cls._fields), (path, call.lineno)
                    found += 1
    assert found >= 5
    assert effects.Release._fields == effects.Abandon._fields == effects.EmergencyRelease._fields


@pytest.mark.parametrize("count", [0, 1, 16, 17, 32])
def test_any_number_of_fields(count):
    fields = dict.fromkeys((f"f{number}" for number in range(count)), int)
    cls = types.new_class("Many", (NamedTuple,), {}, lambda body: body.update(__annotations__=fields))

    assert cls(*range(count)) == cls(**{name: at for at, name in enumerate(fields)}) == tuple(range(count))
    with pytest.raises(TypeError, match="argument"):
        cls(*range(count + 1))
