"""How a customer's identifier is masked: once at the door of the data, once at the door of the server."""

import hmac
import re

MASKED = re.compile(r"u_[0-9a-f]{32}")
NOBODY = "u_" + "0" * 32
"""A masked identifier that no customer has. Asking for it is a whole prediction; by it our own questions are
known (health, readiness, warming up): they are answered like any other, and counted and logged nowhere."""
PROBE_HEADER, THROUGH_GATEWAY = "x-churn-probe", "gateway"
"""What a question of ours says of itself when it travels through a cluster's gateway, which counts it like a
customer's: only such questions may be taken off the gateway's counts."""


def canonical_id(user_id: object, id_type: str) -> str:
    """The one spelling of an identifier, so that 123 masks alike wherever it comes from.

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
    """Keyed HMAC-SHA256, cut to 128 bits: not reversible without the key, stable with it."""
    return "u_" + hmac.digest(key, canonical.encode(), "sha256")[:16].hex()


def key_check(key: bytes) -> str:
    """What the mask key makes of nothing: equal for equal keys, and says nothing else of a key.

    The manifest of a dataset and the bundle of a model carry it, so that another key is noticed.
    """
    return mask("", key)


def is_masked(user_id: object) -> bool:
    return isinstance(user_id, str) and MASKED.fullmatch(user_id) is not None


def pseudonym(user_id: object, id_type: str, key: bytes) -> str:
    """The masked form of an identifier as it was asked for; one that is masked already passes as it is.

    Raises ValueError when `user_id` is neither.
    """
    if isinstance(user_id, str) and is_masked(user_id):
        return user_id
    return mask(canonical_id(user_id, id_type), key)
