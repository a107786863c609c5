"""Archives that are signed with the workspace's key and carry the report of their gates, and are bad all the
same: what a person with that key could deploy. `churn deploy` cannot see it; pods and customers find it out.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from core.workspace import Workspace
from handlers.bundle import digest_of_spec
from support.cluster.models import Commands, Packaged
from support.drills.faults import BEGUN, HANDLER, PREDICTOR, Changes, fails
from training.archive.mar import MANIFEST
from training.archive.signing import load_signing_key, sign
from training.config import TrainingConfig

Bundle = dict[str, Any]
SIGNING_KEY = TrainingConfig.model_fields["signing_key_env"].default
BUILDS = (("ingest",), ("features", "build"))
READS = "        vectors, rows = read.vectors, read.rows\n"


def unchanged(bundle: Bundle) -> None:
    """Another version of the same model."""


@dataclass(frozen=True)
class Bad:
    """What is changed in a good archive."""

    changes: Changes = field(default_factory=dict)
    bundle: Callable[[Bundle], None] = unchanged
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Entry -> its new content."""


def of_another_spec(bundle: Bundle) -> None:
    """Trained with features that are not those in the store: consistent in itself, with the digest of its
    spec."""
    bundle["spec"]["ttl_days"] += 1
    bundle["spec_digest"] = digest_of_spec(bundle["spec"])


GOOD = Bad()
REFUSES = Bad(bundle=of_another_spec)
SLOW = Bad({PREDICTOR: [(READS, f'        __import__("time").sleep(0.4)\n{READS}')]})
FAILS = Bad(fails(0.3))
LARGE = Bad({HANDLER: [(BEGUN, f'        self.weights = [b"w" * (1 << 26) for _ in range(64)]\n{BEGUN}')]})
"""4 GiB of memory that is written to, in steps of 64 MiB."""


def altered(good: Packaged, folder: Path, workspace: Path, bad: Bad) -> Packaged:
    """A changed copy of `good` in `folder`, with a version and a signature of its own, and the same gate
    report."""
    with zipfile.ZipFile(good.archive) as content:
        entries = {name: content.read(name) for name in content.namelist()} | dict(bad.files)
    for name, replacements in bad.changes.items():
        text = entries[name].decode()
        for what, by in replacements:
            assert text.count(what) == 1, f"{name}: {what!r} is there {text.count(what)} times"
            text = text.replace(what, by)
        entries[name] = text.encode()
    bundle, manifest = json.loads(entries["bundle.json"]), json.loads(entries[MANIFEST])
    bad.bundle(bundle)
    # on a cluster the metrics of an archive are labelled with its version
    version = hashlib.sha256(json.dumps([bundle, str(folder)]).encode()).hexdigest()[:12]
    bundle["model_version"] = manifest["model"]["modelVersion"] = version
    entries |= {"bundle.json": json.dumps(bundle).encode(), MANIFEST: json.dumps(manifest).encode()}
    folder.mkdir(parents=True)
    archive = folder / f"churn-{version}.mar"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for name, entry in sorted(entries.items()):
            content.writestr(name, entry)
    sign(archive, load_signing_key(SIGNING_KEY, Workspace(workspace)))
    return Packaged(archive, good.report)


def trained_on_who_stayed(churn: Commands, seed: int) -> Packaged:
    """By the commands, which see nothing wrong, from an export without the customers who have left: hardly
    anybody does, by this model. The features of all customers stay online."""
    rows = pd.read_csv(churn.folder / "log.csv")
    newest = pd.to_datetime(rows.groupby("customer")["when"].transform("max"))
    export = churn.folder / "active.csv"
    rows[newest >= newest.max() - pd.Timedelta(days=30)].to_csv(export, index=False)
    given = (f"data.source.uri={export}",)
    try:
        for words in BUILDS:
            churn(*words, given=given)
        return churn.package(seed, given)
    finally:
        for words in BUILDS:
            churn(*words)
