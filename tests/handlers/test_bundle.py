"""A bundle with wrong content, or for another feature store, is refused with a message of one line."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from handlers.bundle import BundleError, check_store, digest_of_spec, read_bundle
from support.served_bundle import SPEC, ServedBundle


@pytest.fixture
def model_dir(bundle: ServedBundle, tmp_path: Path) -> Path:
    return shutil.copytree(bundle.model_dir, tmp_path / "model")


def change(model_dir: Path, **changes: Any) -> None:
    path = model_dir / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_handler_reads_what_packaging_writes(model_dir: Path) -> None:
    bundle = read_bundle(model_dir)
    assert bundle.inputs == (*SPEC.numeric, *SPEC.categorical)
    assert (bundle.join_key, bundle.id_type, bundle.threshold) == ("user_id", "integer", 0.5)


def test_handler_and_feature_spec_agree_on_the_digest() -> None:
    assert digest_of_spec(json.loads(json.dumps(SPEC.contract()))) == SPEC.digest()


def test_a_bundle_whose_digest_covers_descriptions_stays_usable(model_dir: Path) -> None:
    """As earlier releases wrote it: without eligibility and kinds of rows, and with a digest of the whole
    spec.
    """
    spec = SPEC.contract()
    del spec["eligible"], spec["returns_count_as_life"]
    spec["features"] = [{k: v for k, v in f.items() if k != "over"} for f in spec["features"]]
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    change(model_dir, spec=spec, spec_digest=digest)
    assert digest != SPEC.digest()
    assert read_bundle(model_dir).spec_digest == SPEC.digest()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema_version": 2}, "schema_version 2 is unknown"),
        ({"spec": {"features": []}}, "spec is not the one that spec_digest names"),
        ({"program": {"file": "model.pt2", "sha256": "0" * 64}}, "is not the bundle's 000000000000"),
        ({"program": {"file": "none.pt2", "sha256": "0" * 64}}, "none.pt2: No such file"),
        ({"program": "model.pt2"}, "bundle.json: "),
        ({"entity": {"join_key": "user_id"}}, "id_type is missing"),
        ({"entity": {"join_key": "user_id", "id_type": "uuid"}}, "neither integer nor string"),
        ({"threshold": float("nan")}, "threshold nan is not between 0 and 1"),
    ],
)
def test_a_wrong_bundle_is_refused(model_dir: Path, changes: dict[str, Any], complaint: str) -> None:
    change(model_dir, **changes)
    with pytest.raises(BundleError) as refusal:
        read_bundle(model_dir)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_bundle_that_is_not_an_object_is_refused(model_dir: Path, text: str) -> None:
    (model_dir / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"^bundle\.json: "):
        read_bundle(model_dir)


def test_a_changed_program_is_refused(model_dir: Path) -> None:
    with (model_dir / "model.pt2").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="the archive was changed"):
        read_bundle(model_dir)


def test_a_store_of_another_spec_is_refused(model_dir: Path) -> None:
    bundle = read_bundle(model_dir)
    check_store(bundle, "tiny_v1", {"spec_digest": bundle.spec_digest})
    for tags in ({"spec_digest": "f" * 64}, {}):
        with pytest.raises(BundleError, match="FeatureService tiny_v1 carries spec_digest"):
            check_store(bundle, "tiny_v1", tags)
