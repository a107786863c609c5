"""Where the hand-over files of every stage lie, and how they are replaced without a half-written moment."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """One pipeline's files below one folder (`var` unless configured). Names only: nothing is created."""

    root: Path

    # data -> features
    @property
    def data(self) -> Path:
        """A link to the current one of the versions beside it: data/records/versions.py."""
        return self.root / "data" / "current"

    @property
    def records(self) -> Path:
        """A folder of Parquet parts: data/records/folder.py."""
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
        """Private; archives are signed with it. Its public half is one of `trusted_signers`."""
        return self.root / "secrets" / "signing.key"

    @property
    def api_keys(self) -> Path:
        """Who may ask the gateway: names and SHA-256 of their keys."""
        return self.root / "secrets" / "api-keys.json"

    @property
    def api_key(self) -> Path:
        """The key of this workspace's own client, `churn predict`."""
        return self.root / "secrets" / "api.key"

    @property
    def trusted_signers(self) -> Path:
        """Whose archives may be served and registered: a name and a public key a line."""
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
        """Feast's own files: feature_store.yaml, registry.db, online.db."""
        return self.root / "feast"

    @property
    def training_set(self) -> Path:
        """Labels joined with the features known at their moments, as the feature store gave them."""
        return self.root / "training-set.parquet"

    # training -> gates -> packaging -> serving
    @property
    def tuned(self) -> Path:
        """The best hyperparameters of the study."""
        return self.root / "tuned.json"

    @property
    def trial_artifacts(self) -> Path:
        """Plot and metrics of each trial, named by the study's database."""
        return self.root / "optuna-artifacts"

    @property
    def training(self) -> Path:
        return self.root / "training" / "current"

    @property
    def gate_report(self) -> Path:
        return self.root / "gates" / "current"

    @property
    def candidate(self) -> Path:
        """The archive on trial, made to be measured by the gates."""
        return self.root / "gates" / "candidate.mar"

    @property
    def model_store(self) -> Path:
        return self.root / "model-store"

    @property
    def archive_record(self) -> Path:
        """Which archive packaging wrote last: path, sha256, version."""
        return self.model_store / "newest.json"

    @property
    def serving(self) -> Path:
        return self.root / "serving"

    @property
    def predictions(self) -> Path:
        """The prediction log's segments."""
        return self.serving / "predictions"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def run_record(self) -> Path:
        return self.root / "run.json"

    @property
    def erased(self) -> Path:
        """Who is kept out of later ingests (data/records/erasure.py)."""
        return self.root / "erased.json"

    @property
    def erasures(self) -> Path:
        """The proofs that `churn forget` wrote."""
        return self.root / "erasures"

    @property
    def named_lists(self) -> Path:
        """Who wrote a list with the source's own identifiers, when and where to; a line each."""
        return self.root / "named-lists.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"


@contextmanager
def replaced_directory(current: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success `current` becomes it in one rename, else nothing changes.

    `current` is a symbolic link into its own parent folder, so that a reader sees the old files or the
    new ones and never a mixture. The folder it pointed to before is removed.
    """
    with fresh_directory(current) as fresh:
        yield fresh
        old = current.resolve() if current.is_symlink() else None
        point_to(current, fresh)
    if old is not None and old != fresh:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def fresh_directory(current: Path) -> Iterator[Path]:
    """Yield an empty folder beside `current`; it is removed when the block fails."""
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


def pinned(current: Path, place: Path) -> None:
    """Fill the folder `place` with hard links to the files of `current`, all of one version: a reader keeps
    them whatever replaces or removes `current` meanwhile. Raises FileNotFoundError where there is none.
    """
    while True:
        version = current.resolve(strict=True)
        try:
            shutil.copytree(version, place, copy_function=os.link)
            return
        except (FileNotFoundError, shutil.Error):  # replaced while we linked: take the new one
            shutil.rmtree(place, ignore_errors=True)
            if current.resolve(strict=True) == version:
                raise


def remove_leftovers(current: Path) -> None:
    """Remove what a killed run left beside `current`. Hold a lock: a run that lives looks the same."""
    kept = current.resolve() if current.is_symlink() else None
    for version in current.parent.glob("version-*"):
        if version.is_symlink():
            version.unlink()
        elif version != kept:
            shutil.rmtree(version, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file whole or not at all."""
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
