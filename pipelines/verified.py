"""Verifies an archive before any use: signature, content and gates. Commands and steps all call this."""

from pathlib import Path

from pipelines.context import Stages
from training.archive.verify import Verified, verify_trusted


def verified(settings: Stages, archive: Path, sha256: str | None = None, judged: bool = True) -> Verified:
    """The checks that passed, with the bytes that were checked.

    `sha256` is the recorded digest, if any; with `judged` the archive must have passed its gates. Raises
    ArchiveError or GateFailure in one line.
    """
    return verify_trusted(archive, settings.training, settings.files, sha256, judged)
