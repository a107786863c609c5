import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from churn.settings import Settings
from core.errors import GateFailure, PackagingError
from core.workspace import Workspace
from handlers.bundle import read_bundle
from support.fits import trained_model
from support.judging import STORE, evidence_of
from training.archive.signing import load_signing_key, read_signers
from training.archive.verify import verify_archive
from training.config import GatesConfig
from training.gates import GateReport, judge, write_report
from training.release.content import Run
from training.release.package import Archive, package, stage


@pytest.fixture
def judged(small: Settings, rows: pd.DataFrame, workspace: Workspace) -> Workspace:
    write_report(judge(small.gates, evidence_of(small, rows, workspace)), workspace)
    return workspace


def made(small: Settings, files: Workspace, run_id: str = "run-1") -> Archive:
    return package(trained_model(small, files), STORE, Run(run_id, "c0ffee"))


def test_the_archive_holds_the_judged_program_and_a_bundle_the_handler_accepts(
    small: Settings, judged: Workspace, tmp_path: Path
) -> None:
    archive = made(small, judged)

    assert archive.path == judged.model_store / f"churn-{archive.version}.mar"
    assert archive.sha256 == hashlib.sha256(archive.path.read_bytes()).hexdigest()
    assert json.loads(judged.archive_record.read_text()) == {
        "path": str(archive.path), "sha256": archive.sha256, "version": archive.version,
    }  # fmt: skip
    with zipfile.ZipFile(archive.path) as content:
        content.extractall(tmp_path / "model")
        manifest = json.loads(content.read("MAR-INF/MANIFEST.json"))["model"]
    program = (tmp_path / "model" / "model.pt2").read_bytes()
    assert program == (judged.training / "model.pt2").read_bytes()
    assert GateReport.read(judged.gate_report).program_sha256 == hashlib.sha256(program).hexdigest()
    assert manifest["handler"] == "churn_handler.py"
    assert manifest["modelVersion"] == archive.version
    assert (tmp_path / "model" / "handlers" / "scoring" / "encoding.py").is_file()
    assert (tmp_path / "model" / "feature_store.yaml").read_text() == "project: churn\n"
    bundle = read_bundle(tmp_path / "model")
    assert bundle.model_version == archive.version
    assert bundle.numeric == small.features.numeric
    assert bundle.spec_digest == small.features.digest()
    content = json.loads((tmp_path / "model" / "bundle.json").read_text())
    assert content["run_id"] == "run-1"
    digest = GateReport.read(judged.gate_report).digest
    assert content["gates"] == {"passed": True, "digest": digest, "overrides": []}
    assert content["data_sha256"] == hashlib.sha256(judged.manifest.read_bytes()).hexdigest()


def test_the_handlers_in_the_archive_import_without_the_repository(
    small: Settings, judged: Workspace, tmp_path: Path
) -> None:
    with zipfile.ZipFile(made(small, judged).path) as content:
        content.extractall(tmp_path / "model")
    code = """
import sys
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('model', 'training', 'features', 'data', 'churn', 'serving'):
            raise ImportError(name)
sys.meta_path.insert(0, Closed())
sys.path.insert(0, '.')
import handlers.scoring.encoding, handlers.bundle
from pathlib import Path
assert Path(handlers.scoring.encoding.__file__).is_relative_to(Path.cwd())
handlers.bundle.read_bundle(Path.cwd())
"""
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path / "model", check=True, timeout=60)


def test_the_version_names_the_content_and_not_the_run(small: Settings, judged: Workspace) -> None:
    one, again = made(small, judged, "run-1"), made(small, judged, "run-2")
    training = small.training.model_copy(update={"threshold": 0.4})
    other = package(trained_model(small, judged, training=training), STORE, Run("r", "c"))

    assert one.version == again.version != other.version
    assert sorted(file.name for file in judged.model_store.iterdir()) == sorted(
        [*(file for a in (one, other) for file in (a.path.name, f"{a.path.name}.sig")), "newest.json"]
    )


def test_a_refused_model_cannot_be_packaged(
    small: Settings, rows: pd.DataFrame, workspace: Workspace
) -> None:
    evidence = evidence_of(small, rows, workspace)
    strict = GatesConfig(profile="p", profiles={"p": {"floors": {"minimum": {"auroc": 0.95}}}})
    write_report(judge(strict, evidence), workspace)

    with pytest.raises(GateFailure, match=r"auroc 0\.8\d+ is below 0\.95") as caught:
        made(small, workspace)
    assert caught.value.exit_code == 3
    assert not workspace.model_store.exists()


def test_an_unjudged_model_cannot_be_packaged(small: Settings, workspace: Workspace) -> None:
    with pytest.raises(PackagingError, match="no gate report"):
        made(small, workspace)


def test_another_program_than_the_judged_one_cannot_be_packaged(small: Settings, judged: Workspace) -> None:
    with (judged.training / "model.pt2").open("ab") as program:
        program.write(b"\0")

    with pytest.raises(GateFailure, match="another program"):
        made(small, judged)
    assert not judged.model_store.exists()


def test_what_goes_wrong_leaves_the_store_as_it_was(small: Settings, judged: Workspace) -> None:
    first = made(small, judged)
    judged.manifest.unlink()

    with pytest.raises(PackagingError, match=r"manifest\.json"):
        made(small, judged)
    assert sorted(file.name for file in judged.model_store.iterdir()) == [
        first.path.name, f"{first.path.name}.sig", "newest.json",
    ]  # fmt: skip
    assert verify_archive(first.path, read_signers(judged.trusted_signers), first.sha256)


def test_equal_inputs_give_equal_bytes_in_another_process(
    small: Settings, judged: Workspace, tmp_path: Path
) -> None:
    one = made(small, judged)
    (tmp_path / "config.json").write_text(
        json.dumps([small.training.model_dump(mode="json"), small.features.model_dump(mode="json")])
    )
    again = f"""
import json
from pathlib import Path
from core.workspace import Workspace
from features.spec import FeaturesConfig
from model.config import ModelConfig
from training.config import DecisionConfig, TrainingConfig
from training.learn.resolved import FitSettings
from training.release.content import Run
from training.release.package import package
from training.trained import TrainedModel
training, features = json.loads(Path({str(tmp_path / "config.json")!r}).read_text())
settings = FitSettings("transactions", FeaturesConfig.model_validate(features), ModelConfig(),
                       TrainingConfig.model_validate(training))
files = Workspace(Path({str(judged.root)!r}))
model = TrainedModel(files, settings, DecisionConfig(threshold="training"))
archive = package(model, "project: churn\\n", Run("run-1", "c0ffee"))
print(archive.sha256)
"""
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    time.sleep(2)  # zip times have a grain of two seconds
    done = subprocess.run(
        [sys.executable, "-c", again],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
    )

    assert done.stdout.split()[-1] == one.sha256
    with zipfile.ZipFile(one.path) as content:
        assert content.namelist() == sorted(content.namelist())
        assert {info.date_time for info in content.infolist()} == {(1998, 7, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in content.infolist()} == {0o100644}


def test_the_archive_carries_card_materials_and_reference(
    small: Settings, judged: Workspace, rows: pd.DataFrame
) -> None:
    with zipfile.ZipFile(made(small, judged).path) as content:
        bundle = json.loads(content.read("bundle.json"))
        card, materials = content.read("model_card.md"), content.read("sbom.json")

    assert bundle["model_card_sha256"] == hashlib.sha256(card).hexdigest()
    assert bundle["sbom_sha256"] == hashlib.sha256(materials).hexdigest()
    assert b"run-1" in card
    assert set(bundle["reference"]) == {feature.name for feature in small.features.features}
    whole = rows["recency_days"]
    assert whole.min() < bundle["reference"]["recency_days"] < whole.max()


def test_the_candidate_is_signed_and_no_server_takes_it(small: Settings, judged: Workspace) -> None:
    load_signing_key(small.training.signing_key_env, judged)
    candidate = stage(trained_model(small, judged), STORE)
    trusted = read_signers(judged.trusted_signers)

    assert verify_archive(candidate, trusted, judged=False).gates == {}
    with pytest.raises(GateFailure):
        verify_archive(candidate, trusted)
