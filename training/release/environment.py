"""The software environment of a run, so that the run can be repeated."""

import hashlib
import platform
from functools import cache
from importlib.metadata import distributions, version


@cache
def requirements() -> str:
    """Every installed package with its version, one per line, in pip's format."""
    found = {str(d.metadata["Name"]).lower().replace("_", "-"): d.version for d in distributions()}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def environment() -> dict[str, str]:
    """Python, torch and platform, with a digest of all installed packages."""
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "platform": f"{platform.system()}-{platform.machine()}",
        "packages_sha256": hashlib.sha256(requirements().encode()).hexdigest(),
    }
