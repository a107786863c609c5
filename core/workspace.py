"""The paths of all files that stages exchange, and functions that replace them atomically."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The paths of one pipeline's files below one folder (default `var`). It creates no file."""

    root: Path

    # data -> features
    @property
    def data(self) -> Path:
        """A link to the current version, in the same folder as all versions (data/records/versions.py)."""
        return self.root / "data" / "current"

    @property
    def records(self) -> Path:
        """A folder of Parquet parts (data/records/folder.py)."""
        return self.data / "records"

    @property
    def rejected(self) -> Path:
        return self.data / "rejected.parquet"

    @property
    def manifest(self) -> Path:
        return self.data / "manifest.json"

    @property
    def validation(self) -> Path:
        return self.data / "validation.json"

    @property
    def mask_key(self) -> Path:
        return self.root / "secrets" / "mask.key"

    @property
    def signing_key(self) -> Path:
        """The private key that signs archives. Its public key is one of `trusted_signers`."""
        return self.root / "secrets" / "signing.key"

    @property
    def api_keys(self) -> Path:
        """Clients that may send requests to the gateway: their names and the SHA-256 of their keys."""
        return self.root / "secrets" / "api-keys.json"

    @property
    def api_key(self) -> Path:
        """The API key that `churn predict` uses in this workspace."""
        return self.root / "secrets" / "api.key"

    @property
    def trusted_signers(self) -> Path:
        """The signers whose archives may be served and registered: a name and a public key per line."""
        return self.root / "trusted-signers"

    # features -> training
    @property
    def features(self) -> Path:
        return self.root / "features" / "current"

    @property
    def snapshots(self) -> Path:
        return self.features / "customer_snapshots.parquet"

    @property
    def labels(self) -> Path:
        return self.features / "labels.parquet"

    @property
    def feature_manifest(self) -> Path:
        return self.features / "features.json"

    @property
    def feast(self) -> Path:
        """Feast's files: feature_store.yaml, registry.db, online.db."""
        return self.root / "feast"

    @property
    def services(self) -> Path:
        """The features of services that are not the configured one (ServiceWorkspace)."""
        return self.root / "services"

    @property
    def training_set(self) -> Path:
        """Labels, joined by the feature store with the features that were known at their times."""
        return self.root / "training-set.parquet"

    # training -> gates -> packaging -> serving
    @property
    def tuned(self) -> Path:
        """The best hyperparameters of the study."""
        return self.root / "tuned.json"

    @property
    def trial_artifacts(self) -> Path:
        """Plot and metrics of each trial. The study's database refers to them."""
        return self.root / "optuna-artifacts"

    @property
    def training(self) -> Path:
        return self.root / "training" / "current"

    @property
    def gate_report(self) -> Path:
        return self.root / "gates" / "current"

    @property
    def candidate(self) -> Path:
        """The candidate archive, which the gates measure."""
        return self.root / "gates" / "candidate.mar"

    @property
    def model_store(self) -> Path:
        return self.root / "model-store"

    @property
    def archive_record(self) -> Path:
        """Path, sha256 and version of the newest archive that packaging wrote."""
        return self.model_store / "newest.json"

    @property
    def serving(self) -> Path:
        return self.root / "serving"

    @property
    def predictions(self) -> Path:
        """The prediction log's segments."""
        return self.serving / "predictions"

    @property
    def monitoring(self) -> Path:
        """The evidence of each monitor run, in a folder named by its time (monitoring/evidence.py)."""
        return self.root / "monitoring"

    @property
    def retraining(self) -> Path:
        """A folder for each retraining run (RunWorkspace)."""
        return self.root / "retraining"

    @property
    def training_window(self) -> Path:
        """The snapshots that a model is trained on, where a retraining run has chosen some of them."""
        return self.root / "training-window.json"

    @property
    def steps(self) -> Path:
        """Which steps are done (pipelines/engine.py)."""
        return self.root / "steps.json"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def run_record(self) -> Path:
        return self.root / "run.json"

    @property
    def erased(self) -> Path:
        """The customers that later ingests leave out (data/records/erasure.py)."""
        return self.root / "erased.json"

    @property
    def erasures(self) -> Path:
        """The proofs that `churn forget` wrote."""
        return self.root / "erasures"

    @property
    def named_lists(self) -> Path:
        """A line for each list with raw identifiers: who wrote it, when, and to which file."""
        return self.root / "named-lists.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"


@dataclass(frozen=True)
class ServiceWorkspace(Workspace):
    """The workspace `root` with the features of a service that is not the configured one, but that a model in
    use was trained with (pipelines/services.py)."""

    service: str

    @property
    def features(self) -> Path:
        return self.services / self.service / "current"


@dataclass(frozen=True)
class RunWorkspace(Workspace):
    """The files of a retraining run. What it makes, and the data that it uses, is in `own`; all else, such as
    keys, signers, feature store and the store of models, is that of the workspace `root`.

    So a run replaces no file that the model which serves, or a monitor, reads.
    """

    own: Path

    @property
    def data(self) -> Path:
        return self.own / "data" / "current"

    @property
    def features(self) -> Path:
        return self.own / "features" / "current"

    @property
    def training_set(self) -> Path:
        return self.own / "training-set.parquet"

    @property
    def training_window(self) -> Path:
        return self.own / "training-window.json"

    @property
    def tuned(self) -> Path:
        return self.own / "tuned.json"

    @property
    def training(self) -> Path:
        return self.own / "training" / "current"

    @property
    def gate_report(self) -> Path:
        return self.own / "gates" / "current"

    @property
    def candidate(self) -> Path:
        return self.own / "gates" / "candidate.mar"

    @property
    def archive_record(self) -> Path:
        return self.own / "newest.json"

    @property
    def steps(self) -> Path:
        return self.own / "steps.json"


@contextmanager
def replaced_directory(current: Path) -> Iterator[Path]:
    """Yield an empty folder to fill. On success, one rename makes `current` point to it; else nothing
    changes.

    `current` is a symbolic link to a folder beside it, so that a reader sees either the old or the new files,
    never a mixture. The previous folder is removed.
    """
    with fresh_directory(current) as fresh:
        yield fresh
        old = current.resolve() if current.is_symlink() else None
        point_to(current, fresh)
    if old is not None and old != fresh:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def fresh_directory(current: Path) -> Iterator[Path]:
    """Yield an empty folder beside `current`. It is removed when the block fails."""
    current.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="version-", dir=current.parent))
    fresh.chmod(0o755)
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def point_to(current: Path, folder: Path) -> None:
    """Make `current` a link to the folder beside it, in one rename."""
    link = current.with_name(f"version-{folder.name}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(current)


def link_version(current: Path, place: Path) -> None:
    """Fill the folder `place` with hard links to the files of `current`, all of one version. A reader can use
    them even when `current` is replaced or removed. Raises FileNotFoundError when `current` does not exist.
    """
    while True:
        version = current.resolve(strict=True)
        try:
            shutil.copytree(version, place, copy_function=os.link)
            return
        except (FileNotFoundError, shutil.Error):  # replaced meanwhile: link the new version
            shutil.rmtree(place, ignore_errors=True)
            if current.resolve(strict=True) == version:
                raise


def remove_leftovers(current: Path) -> None:
    """Remove folders that a killed run left beside `current`. The caller holds a lock, because the folders of
    an active run look the same."""
    current_version = current.resolve() if current.is_symlink() else None
    for version in current.parent.glob("version-*"):
        if version.is_symlink():
            version.unlink()
        elif version != current_version:
            shutil.rmtree(version, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file atomically, with mode 644."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
