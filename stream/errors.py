"""The errors of this room."""

from core.errors import ChurnError


class StreamError(ChurnError):
    """A stream that cannot be read with the settings that are there."""

    exit_code = 2


class StoreAway(Exception):
    """A store or the broker cannot be reached now: the same work is tried again."""
