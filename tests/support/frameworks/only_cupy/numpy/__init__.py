"""The calls of numpy that a preflight needs."""

from __future__ import annotations

import os

float32 = None


class Array:
    """Numbers that are not computed."""

    def same(self, *_: object) -> Array:
        """Do nothing."""
        return self

    __mod__ = __matmul__ = reshape = same
    __eq__ = same  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def all(self) -> bool:
        """Whether each number is true."""
        return True


def arange(*_: object, **__: object) -> Array:
    """Some numbers."""
    return Array()


def array_equal(*_: object) -> bool:
    """Whether the result is right."""
    return os.environ["CUDA_VISIBLE_DEVICES"] != "GPU-wrong"
