"""Write access to the folder of archives does not suffice to run code: only verified bytes are loaded."""

import hashlib
import json
import os
import shutil
import signal
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import serving.supervisor
from core.errors import ArchiveError
from rollout.targets.envoy import EnvoyTarget
from serving.archive import Archive, ModelArchive
from serving.config import ServingConfig
from serving.supervisor import Servers
from serving.torchserve.server import TorchServe
from support.served_bundle import ServedBundle, make_archive
from support.servers.stack import Stack, supervisor_of, ticking
from support.waits import within
from training.archive.signing import sign, signature_file
from training.archive.verify import verify_archive

KEY = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
TRUSTED = {KEY.public_key().public_bytes_raw(): "release"}


@pytest.fixture(scope="module")
def signed(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's archive with the other files of a signed one, in a folder that others may write to."""
    folder = tmp_path_factory.mktemp("bucket")
    model_dir = shutil.copytree(bundle.model_dir, folder / "model")
    (model_dir / "sbom.json").write_text("{}")
    described = model_dir / "bundle.json"
    content = json.loads(described.read_text()) | {"sbom_sha256": hashlib.sha256(b"{}").hexdigest()}
    described.write_text(json.dumps(content))
    archive = make_archive(model_dir, folder / "model-store" / "tiny.mar")
    _set_version(archive, content["model_version"])
    sign(archive, KEY)
    return archive


def _set_version(archive: Path, version: str) -> None:
    """With the values that packaging writes; the archiver was called with others."""
    with zipfile.ZipFile(archive) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(parts["MAR-INF/MANIFEST.json"])
    manifest["model"]["modelVersion"] = version
    parts["MAR-INF/MANIFEST.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(archive, "w") as new:
        for name, part in parts.items():
            new.writestr(name, part)


def verifying(bundle: ServedBundle, folder: Path, archive: Path) -> Stack:
    """Servers that verify what they load, as in `churn serve`."""
    made = supervisor_of(bundle, folder)

    def verified(path: Path) -> ModelArchive:
        return ModelArchive(path, verify_archive(path, TRUSTED).content)

    def server(given: Archive, name: str) -> TorchServe:
        return TorchServe(ServingConfig(), given, bundle.environment, made.files, name, verified)

    made.supervisor.servers = Servers(lambda: archive, server)
    return made


def replaced_by_code(archive: Path, scratch: Path, mark: Path) -> None:
    """Replace the good archive by one whose handler creates the file `mark` when it is imported."""
    model_dir = shutil.copytree(archive.parent.parent / "model", scratch / "model")
    handler = model_dir / "churn_handler.py"
    lines = handler.read_text().splitlines(keepends=True)
    after = next(number for number, line in enumerate(lines) if line.startswith("import "))
    lines.insert(after, f"open({str(mark)!r}, 'w').close()\n")
    handler.write_text("".join(lines))
    evil = make_archive(model_dir, scratch / "model-store" / archive.name)
    archive.write_bytes(evil.read_bytes())


@pytest.fixture
def tampered(
    bundle: ServedBundle, signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    """Serves the signed archive, whose file was replaced afterwards. The code in it must never run."""
    monkeypatch.setattr(serving.supervisor, "warm_up", lambda server: 0)
    good, mark = signed.read_bytes(), tmp_path / "code-ran"
    made = verifying(bundle, tmp_path, signed)
    try:
        with made.supervisor as ours, ticking(ours):
            replaced_by_code(signed, tmp_path / "evil", mark)
            yield made
            assert answers(made)
            assert not mark.exists()
            assert EnvoyTarget(ours).observe().stable == hashlib.sha256(good).hexdigest()
            [copy] = Path(ours.model.record()["key_file"]).parent.glob("model-store/*.mar")
            assert copy.read_bytes() == good
            assert copy.parent.stat().st_mode & 0o777 == 0o700
    finally:
        signed.write_bytes(good)
        sign(signed, KEY)


def answers(made: Stack) -> bool:
    return made.post("/predictions/churn", json={"user_id": 1}).status_code == 200


def test_a_changed_file_is_not_loaded_at_a_restart_or_a_change_of_version(
    tampered: Stack, signed: Path
) -> None:
    ours, first = tampered.supervisor, tampered.supervisor.model
    os.kill(first.pid, signal.SIGKILL)
    within(90, lambda: ours.model is not first)
    with pytest.raises(ArchiveError, match="was changed"):
        ours.change()
    signature_file(signed).unlink()
    with pytest.raises(ArchiveError, match="unsigned"):
        ours.replace(signed)


@pytest.mark.slow
def test_a_changed_file_is_not_loaded_when_the_tokens_end(tampered: Stack) -> None:
    ours, first = tampered.supervisor, tampered.supervisor.model
    ours.tick(first.tokens.expire - timedelta(hours=1))
    within(90, lambda: ours.model is not first)


def test_a_change_between_the_check_and_the_load_is_refused(
    bundle: ServedBundle, signed: Path, tmp_path: Path
) -> None:
    good, mark = signed.read_bytes(), tmp_path / "code-ran"
    made = verifying(bundle, tmp_path, signed)

    def checked_then_changed() -> Path:
        verify_archive(signed, TRUSTED)
        replaced_by_code(signed, tmp_path / "evil", mark)
        return signed

    made.supervisor.servers = replace(made.supervisor.servers, newest=checked_then_changed)
    try:
        with pytest.raises(ArchiveError, match="was changed"):
            made.supervisor.__enter__()
        assert not mark.exists()
    finally:
        signed.write_bytes(good)
