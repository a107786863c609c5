"""Fixtures of several test files here."""

from support.rollout_database import postgres_server, uri

__all__ = ["postgres_server", "uri"]
