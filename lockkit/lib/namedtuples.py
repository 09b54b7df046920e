"""``NamedTuple``, as in :mod:`typing`, but a class of it takes an eighth of the time to make.

A class statement with :class:`typing.NamedTuple` takes 75 us: Python compiles a constructor, and reads every
annotation. ``import lockkit`` makes forty such classes, and most programs use few. Here a class makes its
constructor at the first look-up, from one for as many fields. Type checkers see :class:`typing.NamedTuple`.

Not supported, because nothing here needs it: generic classes, further bases, and the functional form.
"""

from __future__ import annotations

import sys
from collections import namedtuple
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self, TypeVar, TypeVarTuple

    T = TypeVar("T")
    Fields = TypeVarTuple("Fields")

__all__ = ["NamedTuple", "made"]

try:  # as collections does: reads a field without a Python call
    from _collections import _tuplegetter as _getter  # type: ignore[import-not-found]
except ImportError:
    from operator import itemgetter

    def _getter(index: int, doc: str) -> Any:
        return property(itemgetter(index), doc=doc)


_new: Any = tuple.__new__

if TYPE_CHECKING:

    def made(kind: Callable[[*Fields], T], fields: tuple[*Fields]) -> T:
        """Make a named tuple of *all* its fields, defaults too, three times as fast as its class does.

        For the few that every acquire and release makes.
        """

else:
    made = _new

# fmt: off
_ROWS: tuple[Any, ...] = (
    lambda _cls: _new(_cls, ()),
    lambda _cls, a: _new(_cls, (a,)),
    lambda _cls, a, b: _new(_cls, (a, b)),
    lambda _cls, a, b, c: _new(_cls, (a, b, c)),
    lambda _cls, a, b, c, d: _new(_cls, (a, b, c, d)),
    lambda _cls, a, b, c, d, e: _new(_cls, (a, b, c, d, e)),
    lambda _cls, a, b, c, d, e, f: _new(_cls, (a, b, c, d, e, f)),
    lambda _cls, a, b, c, d, e, f, g: _new(_cls, (a, b, c, d, e, f, g)),
    lambda _cls, a, b, c, d, e, f, g, h: _new(_cls, (a, b, c, d, e, f, g, h)),
    lambda _cls, a, b, c, d, e, f, g, h, j: _new(_cls, (a, b, c, d, e, f, g, h, j)),
    lambda _cls, a, b, c, d, e, f, g, h, j, k: _new(_cls, (a, b, c, d, e, f, g, h, j, k)),
    lambda _cls, a, b, c, d, e, f, g, h, j, k, m: _new(_cls, (a, b, c, d, e, f, g, h, j, k, m)),
    lambda _cls, a, b, c, d, e, f, g, h, j, k, m, n: _new(_cls, (a, b, c, d, e, f, g, h, j, k, m, n)),
    lambda _cls, a, b, c, d, e, f, g, h, j, k, m, n, p: _new(_cls, (a, b, c, d, e, f, g, h, j, k, m, n, p)),
    lambda _cls, a, b, c, d, e, f, g, h, j, k, m, n, p, q:
        _new(_cls, (a, b, c, d, e, f, g, h, j, k, m, n, p, q)),
    lambda _cls, a, b, c, d, e, f, g, h, j, k, m, n, p, q, r:
        _new(_cls, (a, b, c, d, e, f, g, h, j, k, m, n, p, q, r)),
    lambda _cls, a, b, c, d, e, f, g, h, j, k, m, n, p, q, r, s:
        _new(_cls, (a, b, c, d, e, f, g, h, j, k, m, n, p, q, r, s)),
)
# fmt: on
"""The constructors of named tuples, by number of fields. The standard library compiles one for each class."""


@cache
def _constructor(count: int) -> Any:
    """The constructor of a named tuple with so many fields; one of the standard library beyond the table."""
    if count < len(_ROWS):
        return _ROWS[count]
    return namedtuple("_", [f"f{number}" for number in range(count)]).__new__


class _Constructor:
    """The ``__new__`` of a class until it is first looked up."""

    def __set_name__(self, owner: type[_Named], _name: str) -> None:
        self._owner = owner

    def __get__(self, _instance: object, _owner: type) -> Any:
        cls = self._owner
        like: Any = _constructor(len(cls._fields))
        code = like.__code__.replace(co_varnames=(like.__code__.co_varnames[0], *cls._fields))
        made = FunctionType(code, like.__globals__, "__new__", tuple(cls._field_defaults.values()))
        made.__qualname__ = f"{cls.__qualname__}.__new__"
        made.__annotations__ = cls.__annotations__
        cls.__new__ = staticmethod(made)  # type: ignore[method-assign]  # two threads here make the same
        return made


class _Named(tuple[Any, ...]):
    """The methods of every named tuple."""

    __slots__ = ()
    if TYPE_CHECKING:  # as class annotations they would be taken for fields of every class
        _fields: tuple[str, ...]
        _field_defaults: dict[str, Any]

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:
        made = tuple.__new__(cls, iterable)
        if len(made) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
        return made

    def _replace(self, /, **changes: Any) -> Self:
        made = self._make(map(changes.pop, self._fields, self))
        if changes:
            raise ValueError(f"Got unexpected field names: {list(changes)!r}")
        return made

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({', '.join(fields)})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class _Maker(type):
    """The metaclass that makes the classes. Their own metaclass is :class:`type`, as for typing's classes."""

    def __new__(cls, name: str, _bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        fields = tuple(body.get("__annotations__", ()))
        body["_field_defaults"] = {field: body.pop(field) for field in fields if field in body}
        body.update(__slots__=(), _fields=fields, __match_args__=fields, __new__=_Constructor())
        for index, field in enumerate(fields):
            body[field] = _getter(index, f"Alias for field number {index}")
        return type(name, (_Named,), body)


if TYPE_CHECKING or sys.version_info >= (3, 14):  # 3.14 keeps annotations where _Maker does not look
    from typing import NamedTuple
else:
    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
