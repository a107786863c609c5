"""What the numbers were computed with, so that a run can be set up again."""

import hashlib
import platform
from functools import cache
from importlib.metadata import distributions, version


@cache
def requirements() -> str:
    """Every installed package at its version, one a line, as pip would take it."""
    found = {str(d.metadata["Name"]).lower().replace("_", "-"): d.version for d in distributions()}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def environment() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "platform": f"{platform.system()}-{platform.machine()}",
        "packages_sha256": hashlib.sha256(requirements().encode()).hexdigest(),
    }
