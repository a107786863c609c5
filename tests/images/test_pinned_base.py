"""A release is built on a base image that is named by its digest; a tag is refused with the remedy."""

import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parents[2] / ".ci" / "pinned-base"


def checked(image: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CHECK, image], capture_output=True, text=True, check=False)


def test_a_digest_is_taken() -> None:
    assert checked("registry.example.com/python@sha256:" + "0" * 64).returncode == 0


@pytest.mark.parametrize(
    "image", ["", "python:3.11-slim-bookworm", "python@sha256:...", "python@sha256:" + "0" * 63]
)
def test_a_tag_is_refused_with_the_remedy(image: str) -> None:
    refused = checked(image)
    assert refused.returncode == 2
    assert f"found '{image}'" in refused.stderr and "variable BASE_IMAGE" in refused.stderr
