"""Scores the test rows with the champion, from its registered archive and bundle."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.errors import ChurnError
from core.workspace import Workspace
from features.rows import inputs_at
from features.spec import FeaturesConfig, spec_of
from handlers.bundle import BundleError, read_bundle
from handlers.scoring.encoding import encode
from model.export import load_program
from model.program import score
from training.archive.verify import verify_trusted
from training.config import TrainingConfig
from training.gates import Champion
from training.registry.fetch import fetch
from training.registry.model_registry import Registry, Version
from training.train import KEYS


def score_champion(
    rows: pd.DataFrame, spec: FeaturesConfig, training: TrainingConfig, files: Workspace
) -> tuple[Champion, pd.DataFrame | None]:
    """The champion and its scores of `rows` (user_id, event_timestamp, score).

    Its .mar comes from the registry; signature, registered sha256 and all parts are checked before its
    program is loaded. If it has another feature spec, its own features are computed for the same rows. A
    champion that cannot be fetched, loaded or run is `unusable` with the reason. The rule `champion` then
    fails, which a person may override. The state is `none` only if there is no champion.
    """
    version: Version | None = None
    try:
        version = Registry(training).champion()
        if version is None:
            return Champion("none"), None
        with TemporaryDirectory() as scratch:
            scores = scored_by(rows, spec, _verified(version, training, files, Path(scratch)), files)
    except Exception as error:  # another release of a library may raise anything on an older program
        return Champion("unusable", "unknown" if version is None else version.number, _why(error)), None
    keys = rows[list(KEYS)].reset_index(drop=True)
    return Champion("scored", version.number), keys.assign(score=scores)


def align_champion(
    champion: Champion, scored: pd.DataFrame | None, test: pd.DataFrame
) -> tuple[Champion, NDArray[np.float64] | None]:
    """The champion's score of each row of `test`, [B]; if a row has none, the champion is unusable."""
    if champion.state != "scored" or scored is None:
        return champion, None
    keys = list(KEYS)
    found = (
        test[keys].merge(scored, on=keys, how="left", validate="one_to_one")["score"].to_numpy(dtype=float)
    )
    missing = int((~np.isfinite(found)).sum())
    if missing:
        problem = f"has no score for {missing:,} of {len(found):,} test rows"
        return Champion("unusable", champion.version, problem), None
    return champion, found


def _verified(version: Version, training: TrainingConfig, files: Workspace, folder: Path) -> Path:
    """The unpacked archive of a version, verified before."""
    archive = fetch(version, training.tracking_uri, folder / "mar")
    verified = verify_trusted(archive, training, files, version.tags.get("archive_sha256"))
    return verified.unpack(folder / "model")


def _why(error: Exception) -> str:
    """The error as one line."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, ChurnError | BundleError):
        return text
    return f"cannot be loaded: {type(error).__name__}: {text}"


def scored_by(
    rows: pd.DataFrame, spec: FeaturesConfig, folder: Path, files: Workspace
) -> NDArray[np.float64]:
    """[B]: the scores of the unpacked, verified archive in `folder`, of the customers and moments of `rows`.

    `rows` have the features of `spec`. For an archive with another spec, its own features are computed from
    the records of `files`. Raises FeatureError where the records do not have what they need.
    """
    bundle = read_bundle(folder)
    if bundle.spec_digest != spec.digest():
        rows = inputs_at(spec_of(bundle.spec, spec), files, rows)
    columns = {name: rows[name].to_numpy() for name in bundle.inputs}
    numeric, codes = encode(columns, bundle.numeric, bundle.vocabulary)
    return score(load_program(bundle.program), numeric, codes)
