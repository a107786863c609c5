"""Numbers in the worker's environment."""

import math
from collections.abc import Mapping

from handlers.bundle import BundleError


def number(environment: Mapping[str, str], name: str, default: str, above: float = -math.inf) -> float:
    """The variable as a number. Raises BundleError with its name unless it is finite and above `above`."""
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
