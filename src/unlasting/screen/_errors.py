"""Errors of the package."""


class MissingKeyError(KeyError):
    """A column, layer or result is not there. Unlike any other `KeyError`, it shows its message without quotes."""

    __str__ = Exception.__str__
