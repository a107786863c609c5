"""A wrong mask key is detected before a request is answered, and a key can be replaced while servers run."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.bundle import BundleError
from handlers.identity import key_check, mask
from handlers.loading import load
from handlers.mask_key import read_mask_key
from handlers.predictor import Predictor
from support.served_bundle import KEY, NOW, ServedBundle

OTHER = b"another key, of 32 bytes and more, too"
BOTH = {"CHURN_MASK_KEY": OTHER.decode(), "CHURN_MASK_KEY_PREVIOUS": KEY.decode()}


def test_the_key_is_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(KEY + b"\n")
    file.chmod(0o600)
    assert read_mask_key({"CHURN_MASK_KEY_FILE": str(file)}) == KEY
    assert read_mask_key({"CHURN_MASK_KEY": KEY.decode() + " "}, key_check(KEY)) == KEY


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "no mask key: set CHURN_MASK_KEY_FILE or CHURN_MASK_KEY"),
        ({"CHURN_MASK_KEY": " "}, "no mask key"),
        ({"CHURN_MASK_KEY_PREVIOUS": KEY.decode()}, "no mask key"),
        ({"CHURN_MASK_KEY_FILE": "/none"}, "CHURN_MASK_KEY_FILE: cannot be read"),
        ({"CHURN_MASK_KEY": "x" * 31}, "the mask key has 31 bytes, fewer than 32"),
        ({"CHURN_MASK_KEY": OTHER.decode()}, "masked with another key .*, found CHURN_MASK_KEY u_"),
        (BOTH | {"CHURN_MASK_KEY_PREVIOUS": "y" * 40}, "found CHURN_MASK_KEY u_.*CHURN_MASK_KEY_PREVIOUS u_"),
    ],
)
def test_a_wrong_key_is_refused(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint) as raised:
        read_mask_key(environment, key_check(KEY))
    assert OTHER.decode() not in str(raised.value)
    assert "xxx" not in str(raised.value)


def test_an_archive_that_names_no_key_is_served_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert read_mask_key({"CHURN_MASK_KEY": OTHER.decode()}) == OTHER
    assert "cannot be checked" in caplog.text


def test_a_server_with_another_key_does_not_start(bundle: ServedBundle) -> None:
    environment = bundle.environment | {"CHURN_MASK_KEY": OTHER.decode()}
    with pytest.raises(BundleError, match="masked with another key"):
        load(bundle.model_dir, environment, "churn")


def test_two_models_run_side_by_side_while_the_key_is_replaced(bundle: ServedBundle, tmp_path: Path) -> None:
    """One environment with both keys: each archive masks with the key of its own data."""
    model_dir = shutil.copytree(bundle.model_dir, tmp_path / "model")
    content = json.loads((model_dir / "bundle.json").read_text())
    content["entity"]["key_check"] = key_check(OTHER)
    (model_dir / "bundle.json").write_text(json.dumps(content))
    old, new = (
        replace(load(folder, bundle.environment | BOTH, "churn"), clock=lambda: NOW)
        for folder in (bundle.model_dir, model_dir)
    )
    assert (old.mask_key, new.mask_key) == (KEY, OTHER)

    def status_of(predictor: Predictor, body: object) -> int:
        return predictor.answer([{"body": json.dumps(body).encode()}])[0].http_status

    # The store contains customers masked with the old key; masked identifiers are used unchanged.
    assert status_of(old, {"user_id": 1}) == status_of(new, {"user_id": mask("1", KEY)}) == 200
    assert status_of(new, {"user_id": 1}) == 404
    assert hashlib.sha256(KEY).hexdigest() not in json.dumps(content)
