"""bundle.json, the description of the archive: it is read and checked before anything else is loaded."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
STORE_TAG = "spec_digest"


class BundleError(RuntimeError):
    """The archive must not be served; the message states why, in one line."""


@dataclass(frozen=True)
class Bundle:
    """The content of bundle.json."""

    model_version: str
    program: Path
    join_key: str
    id_type: str
    spec: Mapping[str, Any]
    spec_digest: str
    numeric: tuple[str, ...]
    vocabulary: Mapping[str, tuple[str | None, ...]]
    threshold: float
    key_check: str = ""
    """`identity.key_check` of the key that masked the data; empty in archives of earlier releases."""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """Feature -> its median or most frequent value in training, with which explanations compare."""
    digest: str = ""
    """sha256 of bundle.json, which identifies the archive in the prediction log."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs of the network, in their order."""
        return (*self.numeric, *self.vocabulary)


def read_bundle(model_dir: Path) -> Bundle:
    """Reads and checks bundle.json in `model_dir`.

    Raises BundleError for another schema version, for a missing or wrong field, and for a program or a spec
    whose digest differs from the one in the bundle.
    """
    content = _read(model_dir / "bundle.json")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise BundleError(
            f"bundle.json: schema_version {content.get('schema_version')!r} is unknown to this handler, "
            f"which reads {SCHEMA_VERSION}; package the model again"
        )
    try:
        bundle = Bundle(
            model_version=str(content["model_version"]),
            program=model_dir / Path(content["program"]["file"]).name,
            join_key=str(content["entity"]["join_key"]),
            id_type=str(content["entity"]["id_type"]),
            spec=dict(content["spec"]),
            spec_digest=present_digest(content["spec"], str(content["spec_digest"])),
            numeric=tuple(content["numeric"]),
            vocabulary={name: tuple(values) for name, values in content["vocabulary"].items()},
            threshold=float(content["threshold"]),
            key_check=str(content["entity"].get("key_check", "")),
            reference=dict(content.get("reference", {})),
            digest=hashlib.sha256((model_dir / "bundle.json").read_bytes()).hexdigest(),
        )
        program_digest = str(content["program"]["sha256"])
    except KeyError as error:
        raise BundleError(f"bundle.json: {error.args[0]} is missing; package the model again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"bundle.json: {error}; package the model again") from None
    _check(bundle, program_digest)
    return bundle


def check_store(bundle: Bundle, service: str, tags: Mapping[str, str]) -> None:
    """Raises BundleError if the FeatureService `service`, which has `tags`, is of another feature spec."""
    found = tags.get(STORE_TAG)
    if found != bundle.spec_digest:
        raise BundleError(
            f"feature store: FeatureService {service} carries {STORE_TAG} {_short(found)}, "
            f"the model was trained with {_short(bundle.spec_digest)}; build and materialize the features "
            "of this spec, or package the model again"
        )


def digest_of_spec(spec: Mapping[str, Any]) -> str:
    """sha256 of what defines a feature vector in the spec; `features` tags the FeatureService with it.

    Descriptions are not included, so that a model stays usable after a correction of the text. Neither are
    the defaults of settings that earlier releases did not have, so that it stays usable after an update.
    """
    meaning = {key: value for key, value in spec.items() if (key, value) not in _NEW_DEFAULTS}
    for part in ("features", "derived"):
        meaning[part] = [
            {k: v for k, v in item.items() if k != "description" and (k, v) not in _NEW_DEFAULTS}
            for item in spec.get(part, ())
        ]
    return _sha256(meaning)


_NEW_DEFAULTS = (("over", "purchases"), ("eligible", None), ("returns_count_as_life", False))


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def present_digest(spec: Mapping[str, Any], found: str) -> str:
    """What `digest_of_spec` gives, also for a bundle whose digest covers the whole spec, as that of earlier
    releases does; a digest that is neither is returned as it is."""
    return digest_of_spec(spec) if found == _sha256(spec) else found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"bundle.json: {error.strerror}; package the model again") from None
    except ValueError as error:
        raise BundleError(f"bundle.json: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BundleError("bundle.json: expected an object")
    return content


def _check(bundle: Bundle, program_digest: str) -> None:
    if bundle.id_type not in ("integer", "string"):
        raise BundleError(f"bundle.json: entity.id_type {bundle.id_type!r} is neither integer nor string")
    if not 0 < bundle.threshold < 1:
        raise BundleError(f"bundle.json: threshold {bundle.threshold} is not between 0 and 1")
    if digest_of_spec(bundle.spec) != bundle.spec_digest:
        raise BundleError("bundle.json: spec is not the one that spec_digest names; package the model again")
    try:
        found = hashlib.sha256(bundle.program.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{bundle.program.name}: {error.strerror}; package the model again") from None
    if found != program_digest:
        raise BundleError(
            f"{bundle.program.name}: sha256 {_short(found)} is not the bundle's {_short(program_digest)}; "
            "the archive was changed, package the model again"
        )


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
