"""Masks identifiers of customers, in the same way when data are ingested and when a request arrives."""

import hmac
import re

MASKED = re.compile(r"u_[0-9a-f]{32}")
PROBE_ID = "u_" + "0" * 32
"""A masked identifier that no customer has. Our own requests use it (health, readiness, warm-up). They need a
whole prediction, but are neither counted as requests of customers nor logged."""
PROBE_HEADER, THROUGH_GATEWAY = "x-churn-probe", "gateway"
"""Header and value of our own requests through a cluster's gateway, which counts them like all others. Only
requests with this header may be subtracted from the counts of the gateway."""


def canonical_id(user_id: object, id_type: str) -> str:
    """The one spelling of an identifier, so that 123 has the same masked form wherever it comes from.

    Raises ValueError when `user_id` is not of the declared type (`integer` or `string`).
    """
    if id_type == "integer":
        if isinstance(user_id, bool) or not isinstance(user_id, int):
            raise ValueError("user_id must be an integer")
        return str(user_id)
    if not isinstance(user_id, str) or not user_id:
        raise ValueError("user_id must be a non-empty string")
    return user_id


def mask(canonical: str, key: bytes) -> str:
    """Keyed HMAC-SHA256, truncated to 128 bits: always the same with one key, not reversible without it."""
    return "u_" + hmac.digest(key, canonical.encode(), "sha256")[:16].hex()


def key_check(key: bytes) -> str:
    """The masked form of an empty identifier. It is equal for equal keys and reveals nothing about a key.

    The manifest of a dataset and the bundle of a model contain it, so that a wrong key is detected.
    """
    return mask("", key)


def is_masked(user_id: object) -> bool:
    return isinstance(user_id, str) and MASKED.fullmatch(user_id) is not None


def pseudonym(user_id: object, id_type: str, key: bytes) -> str:
    """The masked form of an identifier in a request; a masked one is returned unchanged.

    Raises ValueError when `user_id` is neither masked nor of the type `id_type`.
    """
    if isinstance(user_id, str) and is_masked(user_id):
        return user_id
    return mask(canonical_id(user_id, id_type), key)
