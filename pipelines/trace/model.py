"""From a prediction to the archive, the registered version, the gates, the run and the training data."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ArchiveError, ChurnError, DataError
from data.prepare.parts import sha256 as sha256_of_file
from data.records.versions import find
from pipelines.context import Stages
from pipelines.trace.link import Link, Proof, same
from pipelines.verified import verified
from training.gates import GateReport
from training.registry.fetch import fetch
from training.registry.mlflow_client import client_of, mlflow_errors
from training.registry.model_registry import Registry, Version

GATE_REPORT = "gate_report.json"


@dataclass(frozen=True)
class Model:
    """The archive that made a prediction."""

    path: Path
    bundle: Mapping[str, Any]
    link: Link


def find_model(settings: Stages, record: Mapping[str, Any], scratch: Path) -> Model:
    """The archive whose bundle.json has the digest in the log, from the workspace or else the registry.

    Raises ArchiveError if it is in neither of them.
    """
    digest, version = str(record["bundle_sha256"]), str(record["model_version"])
    path = _archive_here(settings, digest) or _archive_registered(settings, version, digest, scratch)
    text = _bundle_text(path)
    bundle = json.loads(text)
    found = hashlib.sha256(text).hexdigest()
    proofs = [same("sha256 of bundle.json", found, digest), same("version", bundle["model_version"], version)]
    facts: dict[str, object] = {"version": version, "file": str(path)}
    try:
        checked = verified(settings, path)
        facts |= {"sha256": checked.sha256, "signed by": checked.signer}
        proofs.append(Proof(f"signature and {len(checked.checks)} checks of churn verify", True))
    except ChurnError as error:
        proofs.append(Proof(str(error), False))
    return Model(path, bundle, Link("archive", facts, proofs))


def registered(settings: Stages, model: Model) -> Link:
    """The version in the registry that has this archive."""
    registry = Registry(settings.training)
    archive = model.link.facts.get("sha256")
    versions = registry.versions() if registry.exists else []
    version = next((v for v in versions if v.tags.get("archive_sha256") == archive), None)
    if version is None:
        missing = Proof("no registered version has this archive", False)
        return Link("registered version", {}, [missing])
    aliases = sorted(name for name, number in registry.aliases().items() if number == version.number)
    facts = {"number": version.number, "aliases": ", ".join(aliases) or "none", "run": version.run_id}
    return Link("registered version", facts, [same("its run", version.run_id, model.bundle.get("run_id"))])


def gates(settings: Stages, model: Model) -> Link:
    """The report of the gates, of which the archive contains the digest."""
    digest = (model.bundle.get("gates") or {}).get("digest")
    for text in _gate_reports(settings, model):
        report = GateReport.from_json(text)
        if report.digest == digest:
            passed = f"{len(report.verdicts) - len(report.failures)} of {len(report.verdicts)} rules hold"
            facts = {"profile": report.profile, "state": report.state, "rules": passed, "rows": report.rows}
            program = model.bundle["program"]["sha256"]
            proofs = [
                same("sha256 of the report", report.digest, digest),
                same("program that was judged", report.program_sha256, program),
            ]
            return Link("gate report", facts, proofs)
    return Link("gate report", {}, [Proof("no stored report has the digest in the archive", False)])


def run(settings: Stages, model: Model) -> Link:
    """The run in MLflow that documents the training."""
    run_id, uri = str(model.bundle.get("run_id", "")), settings.training.tracking_uri
    if not Registry(settings.training).exists:
        return Link("MLflow run", {"id": run_id}, [Proof("there is no MLflow database here", False)])
    try:
        with mlflow_errors(uri):
            tags = client_of(uri).get_run(run_id).data.tags
    except ChurnError as error:
        return Link("MLflow run", {"id": run_id}, [Proof(str(error), False)])
    named = {name: model.bundle.get(name) for name in ("data_sha256", "spec_digest", "git_sha")}
    named["program_sha256"] = model.bundle["program"]["sha256"]
    facts = {"id": run_id, "code": tags.get("git_sha"), "profile of gates": tags.get("gates_profile")}
    return Link("MLflow run", facts, [same(name, tags.get(name), value) for name, value in named.items()])


def training_data(settings: Stages, model: Model) -> Link:
    """The version of the records that the model was trained on, part by part."""
    digest, window = str(model.bundle["data_sha256"]), model.bundle["window"]
    facts: dict[str, object] = {"window": f"{window['start'][:10]} to {window['end'][:10]}"}
    try:
        folder = find(settings.files, digest)
    except DataError as error:
        return Link("training data", facts, [Proof(str(error), False)])
    text = (folder / settings.files.manifest.name).read_bytes()
    manifest = json.loads(text)
    facts |= {
        "rows": manifest["rows"],
        "customers": manifest["customers"],
        "source": manifest["source"]["uri"],
    }
    proofs = [same("sha256 of the manifest", hashlib.sha256(text).hexdigest(), digest)]
    for part in manifest["parts"]:
        file = folder / settings.files.records.name / part["name"]
        found = sha256_of_file(file) if file.is_file() else None
        proofs.append(same(part["name"], found, part["sha256"]))
    return Link("training data", facts, proofs)


def _archive_here(settings: Stages, digest: str) -> Path | None:
    for path in sorted(settings.files.model_store.rglob("*.mar")):
        try:
            if hashlib.sha256(_bundle_text(path)).hexdigest() == digest:
                return path
        except ArchiveError:
            continue
    return None


def _archive_registered(settings: Stages, model_version: str, digest: str, scratch: Path) -> Path:
    registry = Registry(settings.training)
    known: list[Version] = registry.versions() if registry.exists else []
    for version in known:
        if version.tags.get("model_version") == model_version:
            path = fetch(version, settings.training.tracking_uri, scratch / version.number)
            if hashlib.sha256(_bundle_text(path)).hexdigest() == digest:
                return path
    raise ArchiveError(
        f"version {model_version}, bundle {digest[:12]}: its archive is neither in the workspace nor in the"
        " registry; restore it from your backup"
    )


def _bundle_text(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as content:
            return content.read("bundle.json")
    except (OSError, KeyError, zipfile.BadZipFile):
        raise ArchiveError(f"{path}: not an archive of ours; fetch it again") from None


def _gate_reports(settings: Stages, model: Model) -> list[str]:
    """The stored reports that may belong to the archive: those of this machine, then the run's."""
    places = [settings.files.gate_report, *(parent for parent in model.path.parents[:2])]
    texts = [file.read_text(encoding="utf-8") for place in places if (file := place / GATE_REPORT).is_file()]
    if run_id := model.bundle.get("run_id"):
        texts += _report_of_run(settings, str(run_id))
    return texts


def _report_of_run(settings: Stages, run_id: str) -> list[str]:
    from mlflow.artifacts import download_artifacts

    uri = settings.training.tracking_uri
    if not Registry(settings.training).exists:
        return []
    try:
        with mlflow_errors(uri):
            place = download_artifacts(run_id=run_id, artifact_path=f"gates/{GATE_REPORT}", tracking_uri=uri)
    except ChurnError:
        return []
    return [Path(place).read_text(encoding="utf-8")]
