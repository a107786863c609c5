"""Which key identifiers are masked with: the one that the model's data were masked with, or none.

While a key is replaced there are two of them, and each archive finds its own: a server of the old model and
one of the new model run side by side, with one environment.
"""

import logging
from collections.abc import Mapping

from handlers.bundle import BundleError
from handlers.identity import key_check
from handlers.secret import secret

KEY, PREVIOUS = "CHURN_MASK_KEY", "CHURN_MASK_KEY_PREVIOUS"
SHORTEST_KEY = 32
"""Bytes of the text, as data/mask.py wants it; a generated key has 64, which spell 256 random bits."""

log = logging.getLogger("churn.handler")


def read_mask_key(environment: Mapping[str, str], expected: str = "") -> bytes:
    """The key in CHURN_MASK_KEY, or the one in CHURN_MASK_KEY_PREVIOUS, that has the check `expected`.

    Either may be in the file that the variable with `_FILE` at its end names. Without `expected` (an archive
    from before October 2026) it is CHURN_MASK_KEY. Raises BundleError when there is no such key or it is
    shorter than SHORTEST_KEY; the key is in no message.
    """
    keys = {name: key for name in (KEY, PREVIOUS) if (key := _read(environment, name)) is not None}
    if KEY not in keys:
        raise BundleError(f"no mask key: set {KEY}_FILE or {KEY}")
    if not expected:
        log.warning("bundle.json names no mask key: it cannot be checked; package the model again")
        return keys[KEY]
    for key in keys.values():
        if key_check(key) == expected:
            return key
    found = ", ".join(f"{name} {key_check(key)[:10]}" for name, key in keys.items())
    raise BundleError(
        f"the model's customers were masked with another key (check {expected[:10]}, found {found}); "
        f"set {KEY} to that one, or {PREVIOUS} while a key is replaced"
    )


def _read(environment: Mapping[str, str], name: str) -> bytes | None:
    text = secret(environment, name)
    if text is None:
        return None
    key = text.encode()
    if len(key) < SHORTEST_KEY:
        raise BundleError(
            f"{name}: the mask key has {len(key)} bytes, fewer than {SHORTEST_KEY}; "
            "make one with python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return key
