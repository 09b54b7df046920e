"""The version: the build and `lockkit --version` both read it."""

__version__ = "0.1.0"
