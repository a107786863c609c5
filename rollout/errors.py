"""Exceptions of rollouts; their messages are shown to users."""

from core.errors import ChurnError


class RolloutError(ChurnError):
    """A request was refused, or the database cannot be reached; the message states what to do."""


class LeaseHeld(RolloutError):
    """Another controller has the lease: this one must not act."""


class Overtaken(RolloutError):
    """Another process has written since the rollout was read: it has to be read and decided anew."""
