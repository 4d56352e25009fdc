"""What can go wrong with the test bed, each with what to do about it."""

from __future__ import annotations


class BedError(Exception):
    """The root: the message says what, which value, and what to do."""


class PrerequisiteMissing(BedError):
    """This machine lacks something that the bed needs."""


class BuildFailed(BedError):
    """A Go tool or an image could not be built."""


class NotReady(BedError):
    """A part did not come up before its deadline."""
