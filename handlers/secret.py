"""Secrets in the worker's environment: the text itself, or a file that other users cannot read."""

from collections.abc import Mapping
from pathlib import Path

from handlers.bundle import BundleError

OTHERS = 0o007


def secret(environment: Mapping[str, str], name: str) -> str | None:
    """The content of the file that `<name>_FILE` names, else of the variable `name`; None without either.

    White space around it is removed. The group may read the file, because Kubernetes gives the files of a
    secret to the pod's group. Raises BundleError, whose message never contains the secret.
    """
    if not (file := environment.get(f"{name}_FILE")):
        return environment.get(name, "").strip() or None
    try:
        mode = Path(file).stat().st_mode
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{name}_FILE: cannot be read: {type(error).__name__}") from None
    if mode & OTHERS:
        raise BundleError(f"{name}_FILE: {file}: mode {mode & 0o777:o} is open to all; chmod 600 it")
    if not text:
        raise BundleError(f"{name}_FILE: {file} is empty")
    return text
