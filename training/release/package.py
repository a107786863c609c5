"""Packages a judged model as a signed .mar, and the unjudged candidate that the gates measure."""

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import GateFailure, PackagingError
from core.workspace import Workspace, write_atomically
from training.archive.signing import load_signing_key, sign, signature_file
from training.gates import GateReport
from training.release.content import PROGRAM, Run, bundle_of, make_archive
from training.trained import TrainedModel


@dataclass(frozen=True)
class Archive:
    """A packaged archive."""

    path: Path
    sha256: str
    version: str


def stage(model: TrainedModel, feature_store: str) -> Path:
    """Makes the signed candidate `files.candidate`: the archive of `package` without a gate report.

    The gates measure it. No server serves it, and none would accept it, since it contains no passed gates.
    `feature_store` is the text of the archive's feature_store.yaml.
    Raises PackagingError if it cannot be made.
    """
    files = model.files
    key = load_signing_key(model.settings.training.signing_key_env, files)
    files.candidate.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".staging-", dir=files.candidate.parent) as scratch:
        bundle = bundle_of(model, _program_digest(files))
        made, _ = make_archive(Path(scratch), model, bundle, feature_store)
        signature_file(files.candidate).unlink(missing_ok=True)
        made.replace(files.candidate)
    sign(files.candidate, key)
    return files.candidate


def package(model: TrainedModel, feature_store: str, run: Run) -> Archive:
    """Packages `files.training` as `<name>-<version>.mar` in `files.model_store`, signs it, and writes
    `archive_record`.

    `feature_store` is the text of the archive's feature_store.yaml. Batch sizes are not in the archive: they
    are settings of the server, and TorchServe would prefer those of the archive. The version is a digest of
    the content without run id and git sha, so the same model has the same version. Raises GateFailure unless
    the newest gate report passed and is of this program, and PackagingError if the archive cannot be made;
    the store is then unchanged.
    """
    files = model.files
    report = passed_report(files)
    key = load_signing_key(model.settings.training.signing_key_env, files)
    files.model_store.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".packaging-", dir=files.model_store) as scratch:
        bundle = bundle_of(model, report.program_sha256)
        bundle["gates"] = {
            "passed": report.passed,
            "digest": report.digest,
            "overrides": [asdict(override) for override in report.overrides],
        }
        made, version = make_archive(Path(scratch), model, bundle, feature_store, (run, report))
        _check_program(made, report.program_sha256)
        target = files.model_store / f"{model.name}-{version}.mar"
        signature = sign(made, key)
        # in this order, so that a reader in between finds an archive that does not verify, never a wrong one
        signature_file(target).unlink(missing_ok=True)
        made.replace(target)
        signature.replace(signature_file(target))
    archive = Archive(target, hashlib.sha256(target.read_bytes()).hexdigest(), version)
    record = {"path": str(archive.path), "sha256": archive.sha256, "version": archive.version}
    write_atomically(files.archive_record, json.dumps(record, indent=1))
    return archive


def passed_report(files: Workspace) -> GateReport:
    """The newest gate report. Raises GateFailure unless it passed and is of the current program."""
    report = GateReport.read(files.gate_report)
    if not report.passed:
        reasons = "; ".join(verdict.reason for verdict in report.refusals) or "no rule was judged"
        raise GateFailure(f"the gates refused this model: {reasons}")
    if _program_digest(files) != report.program_sha256:
        raise GateFailure("the gate report is of another program; run `churn gates` on this one")
    return report


def _program_digest(files: Workspace) -> str:
    try:
        return hashlib.sha256((files.training / PROGRAM).read_bytes()).hexdigest()
    except OSError as error:
        raise PackagingError(
            f"{files.training / PROGRAM}: {error.strerror}; run `churn train` first"
        ) from None


def _check_program(archive: Path, judged: str) -> None:
    with zipfile.ZipFile(archive) as content:
        packaged = hashlib.sha256(content.read(PROGRAM)).hexdigest()
    if packaged != judged:
        raise PackagingError(
            f"{archive.name}: holds program {packaged[:12]}, the gates judged {judged[:12]}; package again"
        )
