"""An archive that may be used here: signed by somebody whom the settings trust, whole, and judged."""

from pathlib import Path

from pipelines.context import Stages
from training.archive.signing import trusted_signers
from training.archive.verify import Verified, verify_archive


def verified(settings: Stages, archive: Path, sha256: str | None = None, judged: bool = True) -> Verified:
    """What was checked, with the very bytes. `sha256`: what somebody recorded of it; `judged`: it must have
    passed its gates. Raises ArchiveError or GateFailure in one line."""
    signers = trusted_signers(settings.training.trusted_signers, settings.files)
    return verify_archive(archive, signers, sha256, judged)
