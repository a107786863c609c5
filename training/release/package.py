"""Packages a judged model as a signed .mar for TorchServe: program, bundle, handler, store's address.

Equal inputs give equal bytes, in any process at any time.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import handlers
from core.errors import GateFailure, PackagingError
from core.workspace import Workspace, write_atomically
from features.spec import FeaturesConfig
from training.archive.mar import normalise
from training.archive.sbom import sbom
from training.archive.signing import load_signing_key, sign, signature_file
from training.config import DecisionConfig, TrainingConfig
from training.gates import GateReport
from training.release.model_card import model_card

PROGRAM = "model.pt2"
SBOM = "sbom.json"
CARD = "model_card.md"
HANDLERS = Path(handlers.__file__).parent
ENTRY = HANDLERS / "churn_handler.py"
"""Placed at the archive's root; the other modules are in its folder `handlers/`."""


@dataclass(frozen=True)
class Archive:
    """A packaged archive."""

    path: Path
    sha256: str
    version: str


def stage(
    training: TrainingConfig,
    spec: FeaturesConfig,
    files: Workspace,
    feature_store: str,
    name: str = "churn",
    threshold: float | None = None,
) -> Path:
    """Makes the signed candidate `files.candidate`: the archive of `package` without a gate report.

    The gates measure it. No server serves it, and none would accept it, since it contains no passed gates.
    Raises PackagingError if it cannot be made.
    """
    key = load_signing_key(training.signing_key_env, files)
    files.candidate.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".staging-", dir=files.candidate.parent) as scratch:
        bundle = _bundle(training, spec, files, _program_digest(files), threshold)
        made, _ = _made(Path(scratch), files, bundle, feature_store, name, {})
        signature_file(files.candidate).unlink(missing_ok=True)
        made.replace(files.candidate)
    sign(files.candidate, key)
    return files.candidate


def package(
    training: TrainingConfig,
    spec: FeaturesConfig,
    files: Workspace,
    feature_store: str,
    run_id: str,
    git_sha: str,
    name: str = "churn",
    threshold: float | None = None,
    decision: DecisionConfig | None = None,
) -> Archive:
    """Packages `files.training` as `<name>-<version>.mar` in `files.model_store`, signs it, and writes
    `archive_record`.

    `feature_store` is the text of the archive's feature_store.yaml; a customer above `threshold` (default:
    the training's) is at risk. Batch sizes are not in the archive: they are settings of the server, and
    TorchServe would prefer those of the archive. The version is a digest of the content without run id and
    git sha, so the same model has the same version. Raises GateFailure unless the newest gate report passed
    and is of this program, and PackagingError if the archive cannot be made; the store is then unchanged.
    """
    report = passed_report(files)
    key = load_signing_key(training.signing_key_env, files)
    files.model_store.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".packaging-", dir=files.model_store) as scratch:
        bundle = _bundle(training, spec, files, report.program_sha256, threshold)
        bundle["gates"] = {
            "passed": report.passed,
            "digest": report.digest,
            "overrides": [asdict(override) for override in report.overrides],
        }
        run = {"run_id": run_id, "git_sha": git_sha}
        lineage = run | {name: bundle[name] for name in ("data_sha256", "spec_digest")}
        card = _card(spec, training, decision or DecisionConfig(), files, report, lineage)
        made, version = _made(Path(scratch), files, bundle, feature_store, name, run, card)
        _check_program(made, report.program_sha256)
        target = files.model_store / f"{name}-{version}.mar"
        signature = sign(made, key)
        # in this order, so that a reader in between finds an archive that does not verify, never a wrong one
        signature_file(target).unlink(missing_ok=True)
        made.replace(target)
        signature.replace(signature_file(target))
    archive = Archive(target, hashlib.sha256(target.read_bytes()).hexdigest(), version)
    record = {"path": str(archive.path), "sha256": archive.sha256, "version": archive.version}
    write_atomically(files.archive_record, json.dumps(record, indent=1))
    return archive


def _made(
    folder: Path,
    files: Workspace,
    bundle: dict[str, Any],
    feature_store: str,
    name: str,
    run: Mapping[str, str],
    card: str | None = None,
) -> tuple[Path, str]:
    """The archive in `folder`, and its version, which does not depend on `run` and `card`."""
    extra = folder / "extra"
    _stage(extra, feature_store)
    made_at = datetime.fromisoformat(bundle["window"]["end"])
    materials = sbom(name, made_at)
    (extra / SBOM).write_text(materials, encoding="utf-8")
    bundle = bundle | {"sbom_sha256": _sha256(materials)}
    shutil.copyfile(files.training / PROGRAM, folder / PROGRAM)
    shutil.copyfile(ENTRY, folder / ENTRY.name)
    version = _digest_of(bundle, folder)
    content = bundle | {"model_version": version, **run}
    if card is not None:
        (extra / CARD).write_text(card, encoding="utf-8")
        content["model_card_sha256"] = _sha256(card)
    (extra / "bundle.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    archive = _archive(folder, name, version)
    normalise(archive, made_at)
    return archive, version


def _card(
    spec: FeaturesConfig,
    training: TrainingConfig,
    decision: DecisionConfig,
    files: Workspace,
    report: GateReport,
    lineage: Mapping[str, str],
) -> str:
    try:
        return model_card(spec, training, decision, files, report, lineage)
    except OSError as error:
        raise PackagingError(f"{error.filename}: {error.strerror}; run the steps before packaging") from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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


def _bundle(
    training: TrainingConfig,
    spec: FeaturesConfig,
    files: Workspace,
    program_sha256: str,
    threshold: float | None,
) -> dict[str, Any]:
    """The content of bundle.json without gates, version and run."""
    try:
        manifest_bytes = files.manifest.read_bytes()
        manifest = json.loads(manifest_bytes)
        inputs = json.loads((files.training / "inputs.json").read_bytes())
    except OSError as error:
        raise PackagingError(f"{error.filename}: {error.strerror}; run the steps before packaging") from None
    return {
        "schema_version": 1,
        "model_name": training.model_name,
        "program": {"file": PROGRAM, "sha256": program_sha256},
        "entity": {
            "join_key": "user_id",
            "id_type": manifest["id_type"],
            "key_check": manifest.get("key_check", ""),
        },
        "spec": spec.contract(),
        "spec_digest": spec.digest(),
        "numeric": inputs["numeric"],
        "vocabulary": inputs["vocabulary"],
        "reference": inputs.get("reference", {}),
        "threshold": training.threshold if threshold is None else threshold,
        "data_sha256": hashlib.sha256(manifest_bytes).hexdigest(),
        "window": {edge: manifest["window"][edge] for edge in ("start", "end")},
    }


def _stage(extra: Path, feature_store: str) -> None:
    """Writes the archiver's extra files: the handlers package and the store's address."""
    for module in sorted(set(HANDLERS.rglob("*.py")) - {ENTRY}):
        copied = extra / HANDLERS.name / module.relative_to(HANDLERS)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, copied)
    (extra / "feature_store.yaml").write_text(feature_store, encoding="utf-8")


def _digest_of(bundle: Mapping[str, Any], folder: Path) -> str:
    digest = hashlib.sha256(json.dumps(bundle, sort_keys=True).encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _archive(folder: Path, name: str, version: str) -> Path:
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging"),
        *("--model-name", name, "--version", version),
        *("--serialized-file", str(folder / PROGRAM)),
        *("--handler", str(folder / ENTRY.name)),
        *("--extra-files", str(folder / "extra")),
        *("--export-path", str(folder)),
    ]
    # the archiver works in TMPDIR/<model name>, where two processes would collide
    private = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=private)
    archive = folder / f"{name}.mar"
    if done.returncode or not archive.is_file():
        output = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise PackagingError(f"torch-model-archiver: {output[-1]}")
    return archive


def _check_program(archive: Path, judged: str) -> None:
    with zipfile.ZipFile(archive) as content:
        packaged = hashlib.sha256(content.read(PROGRAM)).hexdigest()
    if packaged != judged:
        raise PackagingError(
            f"{archive.name}: holds program {packaged[:12]}, the gates judged {judged[:12]}; package again"
        )
