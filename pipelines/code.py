"""Identifies the code that is running."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def git_commit() -> str:
    """The commit of the checkout, marked `-dirty` when files differ from it.

    An image has no checkout; there CHURN_GIT_SHA contains the commit. Without either it is `unknown`.
    """
    outside = os.environ.get("CHURN_GIT_SHA", "unknown")
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return outside
    return done.stdout.strip() or outside
