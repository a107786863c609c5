"""Numbers in the worker's environment: checked where they are read, and named when they are wrong."""

import math
from collections.abc import Mapping

from handlers.bundle import BundleError


def number(environment: Mapping[str, str], name: str, default: str, above: float = -math.inf) -> float:
    """A finite number greater than `above`. Raises BundleError with the variable's name."""
    text = environment.get(name, default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BundleError(f"{name}: expected a number, found {text!r}")
    if value <= above:
        raise BundleError(f"{name}: expected a number above {above:g}, found {text!r}")
    return value
