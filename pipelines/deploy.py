"""`churn deploy`: writes a model that passed its gates to the store, under a name that is never used again.

An archive may be deployed if a trusted key has signed it, together with the gate report that its bundle
names: the signature covers the bundle, the bundle contains the report's sha256, the report the program's.
A report that failed, is of another model, was changed or is unsigned is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import ArchiveError, ConfigError, GateFailure
from pipelines.cluster_fit import refuse_unfit
from pipelines.context import Context, Stages
from pipelines.live import archive_record
from pipelines.model_store import KEY, ModelStore, packed_path
from pipelines.verified import verified
from rollout.targets.target import Candidate
from serving.torchserve.layout import mounted_properties
from training.archive.signing import SUFFIX, signature_file
from training.archive.verify import Verified
from training.gates import GateReport

REPORT = "gate_report.json"


@dataclass(frozen=True)
class Deployed:
    """An archive in the store of models."""

    candidate: Candidate
    uri: str
    """URI of its folder in the store, in the layout that KServe mounts, with gate_report.json."""
    fresh: bool
    """False: the store contained it already."""


def deploy(context: Context, archive: Path | None = None, report: Path | None = None) -> Deployed:
    """Writes `archive` (default: packaged last), its signature and its gate report into the store.

    The store is `rollout.store`, or the workspace's. Where traffic is split on this machine, servers load
    from this machine, so the workspace's own store gets a copy, whatever `rollout.store` is.

    Raises ArchiveError or GateFailure for an archive that must not be deployed, PackagingError if the store
    cannot be written, ConfigError where a cluster would have to load from a folder of this machine.
    """
    settings = context.settings
    context.progress("checking signature and gates")
    checked, files = deployable(settings, archive, report)
    name = f"{checked.version}-{_digest(files)}"
    own = ModelStore(str(settings.files.model_store))
    store = own if settings.rollout.store is None else ModelStore(settings.rollout.store)
    if settings.rollout.target != "envoy":
        refuse_unfit(checked.content, f"archive {checked.version}")
    if settings.rollout.target != "envoy" and store.local is not None:
        raise ConfigError(
            f"{KEY}: {store.shown}: the cluster of target {settings.rollout.target} cannot load from a folder"
            " of this machine; give a URI such as s3://models/churn"
        )
    context.progress(f"writing to {store.shown} and reading back")
    fresh = store.put(name, files)
    loaded = store.address(name)
    if settings.rollout.target == "envoy":
        if store.local is None:
            own.put(name, files)
        here = store if store.local is not None else own
        loaded = str(Path(here.address(name)) / packed_path(settings))
    return Deployed(Candidate(loaded, checked.sha256, checked.version), store.address(name), fresh)


def deployable(
    settings: Stages, archive: Path | None = None, report: Path | None = None
) -> tuple[Verified, Mapping[str, bytes]]:
    """The verified archive, and the files of its folder in the store."""
    sha256 = None
    if archive is None:
        record = archive_record(settings.files)
        archive, sha256 = Path(record["path"]), record["sha256"]
    checked = verified(settings, archive, sha256, judged=False)
    judged = _gates_passed(checked, archive.name, report or settings.files.gate_report / REPORT)
    packed = packed_path(settings)
    return checked, {
        packed: checked.content,
        packed + SUFFIX: signature_file(archive).read_bytes(),
        "config/config.properties": mounted_properties(settings.serving, checked.version).encode("ascii"),
        REPORT: judged,
    }


def _gates_passed(checked: Verified, name: str, file: Path) -> bytes:
    """The content of the report `file`, if it was signed with the archive and passed.

    Raises ArchiveError for a missing or unsigned report, GateFailure for one that failed or is of another
    model.
    """
    try:
        content = file.read_bytes()
        report = GateReport.from_json(content.decode())
    except (OSError, ValueError):
        raise ArchiveError(
            f"{file}: no gate report that can be read, and nothing is deployed unjudged; run `churn gates`,"
            " or give the report with --report"
        ) from None
    if not report.passed:
        reasons = "; ".join(verdict.reason for verdict in report.refusals) or "no rule was judged"
        raise GateFailure(f"the gates refused this model: {reasons}; see {file}")
    if report.program_sha256 != checked.program_sha256:
        raise GateFailure(
            f"{file}: about another archive: it judged program {str(report.program_sha256)[:12]}, {name}"
            f" holds {checked.program_sha256[:12]}; run `churn gates` and `churn package`, or give its own"
            " --report"
        )
    signed = str(checked.gates.get("digest") or "")
    if not signed:
        raise ArchiveError(f"{file}: unsigned: {name} names no gate report; run `churn package`")
    found = hashlib.sha256(content).hexdigest()
    if found != signed:
        raise ArchiveError(
            f"{file}: unsigned: its sha256 {found[:12]} is not the {signed[:12]} that was signed with {name};"
            " it was changed or made anew: run `churn package`, or give the archive's own --report"
        )
    if checked.gates.get("passed") is not True:
        raise GateFailure(f"{name}: its bundle does not state that the gates passed; run `churn package`")
    return content


def _digest(files: Mapping[str, bytes]) -> str:
    """Digest of all files that a server loads: another size of the server gives another folder."""
    listed = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()[:12]
