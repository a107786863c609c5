"""Makes the .mar for TorchServe: program, bundle, handlers, store's address, SBOM and model card.

Equal inputs give equal bytes, in any process at any time.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import handlers
from core.errors import PackagingError
from training.archive.mar import normalise
from training.archive.sbom import sbom
from training.gates import GateReport
from training.release.model_card import model_card
from training.trained import TrainedModel

PROGRAM = "model.pt2"
SBOM = "sbom.json"
CARD = "model_card.md"
HANDLERS = Path(handlers.__file__).parent
ENTRY = HANDLERS / "churn_handler.py"
"""Placed at the archive's root; the other modules are in its folder `handlers/`."""


@dataclass(frozen=True)
class Run:
    """The run in MLflow that documents a training, and the commit of the code."""

    id: str
    git_sha: str


def make_archive(
    folder: Path,
    model: TrainedModel,
    bundle: dict[str, Any],
    feature_store: str,
    judged: tuple[Run, GateReport] | None = None,
) -> tuple[Path, str]:
    """The archive in `folder`, and its version, which does not depend on `judged`.

    With `judged`, the run and the gate report of the model, the archive has a model card and names the run.
    """
    files, extra = model.files, folder / "extra"
    _stage(extra, feature_store)
    made_at = datetime.fromisoformat(bundle["window"]["end"])
    materials = sbom(model.name, made_at)
    (extra / SBOM).write_text(materials, encoding="utf-8")
    bundle = bundle | {"sbom_sha256": _sha256(materials)}
    shutil.copyfile(files.training / PROGRAM, folder / PROGRAM)
    shutil.copyfile(ENTRY, folder / ENTRY.name)
    version = _digest_of(bundle, folder)
    content = bundle | {"model_version": version}
    if judged is not None:
        run, report = judged
        of_run = {"run_id": run.id, "git_sha": run.git_sha}
        lineage = of_run | {name: bundle[name] for name in ("data_sha256", "spec_digest")}
        card = _card(model, report, lineage)
        (extra / CARD).write_text(card, encoding="utf-8")
        content |= of_run | {"model_card_sha256": _sha256(card)}
    (extra / "bundle.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    archive = _archive(folder, model.name, version)
    normalise(archive, made_at)
    return archive, version


def bundle_of(model: TrainedModel, program_sha256: str) -> dict[str, Any]:
    """The content of bundle.json without gates, version and run."""
    files, spec = model.files, model.settings.spec
    try:
        manifest_bytes = files.manifest.read_bytes()
        manifest = json.loads(manifest_bytes)
        inputs = json.loads((files.training / "inputs.json").read_bytes())
    except OSError as error:
        raise PackagingError(f"{error.filename}: {error.strerror}; run the steps before packaging") from None
    return {
        "schema_version": 1,
        "model_name": model.settings.training.model_name,
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
        "threshold": model.threshold,
        "data_sha256": hashlib.sha256(manifest_bytes).hexdigest(),
        "window": {edge: manifest["window"][edge] for edge in ("start", "end")},
    }


def _card(model: TrainedModel, report: GateReport, lineage: Mapping[str, str]) -> str:
    try:
        return model_card(model, report, lineage)
    except OSError as error:
        raise PackagingError(f"{error.filename}: {error.strerror}; run the steps before packaging") from None


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


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
