"""What can go wrong with a rollout, in words for a person."""

from core.errors import ChurnError


class RolloutError(ChurnError):
    """Refused, or the database cannot be reached; the message says what to do."""


class LeaseHeld(RolloutError):
    """Another controller has the rollout: this one must not act."""


class Overtaken(RolloutError):
    """Somebody else has written since this was read: read again, decide again."""
