"""Runs each check and prints a line for it: what was checked and how long it took, or why it was not, or what
is wrong.

    python -m deploy.lint            all
    python -m deploy.lint kong alb   some, by name

Exit code 1 where a check found something. A check whose tool is not on this machine is skipped, with its
name.
"""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from deploy.lint import alb, compose, kong, kustomize, terraform
from deploy.lint.tool import Missing

CHECKS = {
    "terraform": terraform.complaints,
    "checkov": terraform.policy_complaints,
    "kong": kong.complaints,
    "alb": alb.complaints,
    "kustomize": kustomize.complaints,
    "compose": compose.complaints,
}


def run(name: str) -> tuple[str, bool]:
    """The line of a check, and whether it found nothing."""
    start = time.monotonic()
    try:
        found = CHECKS[name]()
    except Missing as missing:
        return f"{name}: skipped: {missing}", True
    seconds = f"{time.monotonic() - start:.1f} s"
    if found:
        return "\n".join([f"{name}: {len(found)} found, {seconds}", *(f"  {line}" for line in found)]), False
    return f"{name}: ok, {seconds}", True


def main(names: Sequence[str]) -> int:
    """Exit code: 0, or 1 where a check found something, or 2 for an unknown name."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"no check {', '.join(unknown)}: choose from {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(max_workers=2) as workers:
        results = list(workers.map(run, names or CHECKS))
    print("\n".join(line for line, _ in results))
    return 0 if all(good for _, good in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
