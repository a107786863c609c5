"""Verifies that an archive is the one that was judged and signed, before it is served or scored with."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ArchiveError, GateFailure
from core.workspace import Workspace
from handlers.bundle import SCHEMA_VERSION, digest_of_spec, present_digest
from training.archive.mar import MANIFEST, open_checked, read_json
from training.archive.signing import Signers, check_signature, trusted_signers
from training.config import TrainingConfig


@dataclass(frozen=True)
class Verified:
    """The content of an archive that passed every check."""

    signer: str
    """The name in the list of trusted signers."""
    sha256: str
    version: str
    spec_digest: str
    program_sha256: str
    gates: Mapping[str, Any]
    """`passed`, `digest` and `overrides`; empty for a candidate, which is not judged yet."""
    checks: tuple[tuple[str, str], ...]
    """Each check and its result, in order."""
    content: bytes
    """The bytes that were checked; unpack these, so that a later change of the file has no effect."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """The feature spec that the model was trained with, which `spec_digest` identifies."""
        with open_checked(self.content, "archive") as archive:
            return dict(read_json(archive, "bundle.json", "archive")["spec"])

    def unpack(self, folder: Path) -> Path:
        """Writes the entries into `folder`, which the handler can load as its model_dir."""
        with open_checked(self.content, "archive") as archive:
            archive.extractall(folder)
        return folder


def verify_trusted(
    archive: Path, training: TrainingConfig, files: Workspace, sha256: str | None = None, judged: bool = True
) -> Verified:
    """`verify_archive` with the signers that `training.trusted_signers`, or the workspace, names."""
    return verify_archive(archive, trusted_signers(training.trusted_signers, files), sha256, judged)


def verify_archive(
    archive: Path, trusted: Signers, sha256: str | None = None, judged: bool = True
) -> Verified:
    """Checks signature and structure, and that all parts have the digests in the bundle.

    `sha256` is the recorded digest that the archive must have, if any; with `judged` the gates must have
    passed. Raises ArchiveError with one line, and GateFailure for an archive of a refused model.
    """
    name = archive.name
    try:
        data = archive.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{archive}: {error.strerror}; give the path of a .mar") from None
    signed = check_signature(archive, data, trusted)
    if sha256 is not None and signed.sha256 != sha256:
        raise ArchiveError(
            f"{name}: sha256 {signed.sha256[:12]} is not the recorded {sha256[:12]}; package the model again"
        )
    checks = [
        ("signature", f"Ed25519, by {signed.signer}"),
        ("sha256", signed.sha256 if sha256 is None else f"{signed.sha256}, as recorded"),
    ]
    with open_checked(data, name) as content:
        checks.append(("entries", f"{len(content.namelist())}, none outside the archive, checksums hold"))
        bundle = read_json(content, "bundle.json", name)
        manifest = read_json(content, MANIFEST, name)
        try:
            version = _version(bundle, manifest, name)
            checks.append(("version", version))
            spec_digest = _spec(bundle, name)
            checks.append(("feature spec", spec_digest))
            for entry, digest in _parts(bundle):
                if hashlib.sha256(content.read(entry)).hexdigest() != digest:
                    raise ArchiveError(f"{name}: {entry} is not the one that the bundle names; package again")
                checks.append((entry, f"sha256 {digest[:12]}, as in the bundle"))
            gates = dict(bundle.get("gates") or {})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = " ".join(str(error).split())
            raise ArchiveError(f"{name}: bundle.json is incomplete: {message}; package again") from None
    if judged:
        checks.append(("gates", _gates(gates, name)))
    program_sha256 = str(bundle["program"]["sha256"])
    return Verified(
        signed.signer, signed.sha256, version, spec_digest, program_sha256, gates, tuple(checks), data
    )


def _version(bundle: Mapping[str, Any], manifest: Mapping[str, Any], name: str) -> str:
    if bundle["schema_version"] != SCHEMA_VERSION:
        raise ArchiveError(
            f"{name}: bundle schema_version {bundle['schema_version']!r}, this release reads "
            f"{SCHEMA_VERSION}; package the model again"
        )
    version = str(manifest["model"]["modelVersion"])
    if version != bundle["model_version"]:
        raise ArchiveError(
            f"{name}: its manifest has version {version}, its bundle {bundle['model_version']}; package again"
        )
    return version


def _spec(bundle: Mapping[str, Any], name: str) -> str:
    digest = present_digest(bundle["spec"], str(bundle["spec_digest"]))
    if digest_of_spec(bundle["spec"]) != digest:
        raise ArchiveError(f"{name}: its feature spec is not the one that spec_digest names; package again")
    return digest


def _parts(bundle: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The entries whose digests are in the bundle, with these digests."""
    parts = [(str(bundle["program"]["file"]), str(bundle["program"]["sha256"]))]
    parts.append(("sbom.json", str(bundle["sbom_sha256"])))
    if digest := bundle.get("model_card_sha256"):
        parts.append(("model_card.md", str(digest)))
    return parts


def _gates(gates: Mapping[str, Any], name: str) -> str:
    digest = str(gates.get("digest", ""))
    if gates.get("passed") is not True or not digest:
        raise GateFailure(f"{name}: its model has not passed the gates; run `churn gates`, package again")
    overrides = len(gates.get("overrides") or ())
    return f"passed, report {digest[:12]}" + (f", {overrides} overridden" if overrides else "")
