"""Finds the key with which identifiers are masked: the one that masked the data of the model.

While a key is replaced, the environment has two keys and each archive finds its own. So servers of the old
and of the new model run side by side with the same environment.
"""

import logging
from collections.abc import Mapping

from handlers.bundle import BundleError
from handlers.identity import key_check
from handlers.secret import secret

KEY, PREVIOUS = "CHURN_MASK_KEY", "CHURN_MASK_KEY_PREVIOUS"
SHORTEST_KEY = 32
"""Bytes of the text, as in data/mask.py; a generated key has 64, which encode 256 random bits."""

log = logging.getLogger("churn.handler")


def read_mask_key(environment: Mapping[str, str], expected: str = "") -> bytes:
    """The key in CHURN_MASK_KEY or CHURN_MASK_KEY_PREVIOUS whose `key_check` is `expected`.

    Each may be in a file, which the variable with `_FILE` at its end names. Without `expected` (an archive
    from before October 2026) it is the key in CHURN_MASK_KEY. Raises BundleError when there is no such key or
    it is shorter than SHORTEST_KEY; no message contains the key.
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
