"""The model that serves now, brought to today's test rows: from its own archive, by its own bundle."""

import hashlib
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.errors import TrainingError
from features.spec import FeaturesConfig
from handlers.bundle import BundleError, read_bundle
from handlers.encoding import encode
from model.export import load_program
from model.program import score
from training.config import TrainingConfig
from training.gates import Champion
from training.mlflow_client import reaching
from training.registry import Registry, Version
from training.train import KEYS


def score_champion(
    rows: pd.DataFrame, spec: FeaturesConfig, training: TrainingConfig
) -> tuple[Champion, pd.DataFrame | None]:
    """The champion and its scores of `rows` (user_id, event_timestamp, score).

    Its .mar comes from the registry and is checked against the sha256 that was registered; the program
    against the bundle's. A champion that cannot be had, or that was made for another feature spec, is
    `unusable` with the reason; only where there is no champion at all is it `none`.
    """
    try:
        version = Registry(training).champion()
        if version is None:
            return Champion("none"), None
    except TrainingError as error:
        return Champion("unusable", "unknown", str(error)), None
    try:
        with TemporaryDirectory() as scratch:
            scores = _scored(rows, spec, _fetch(version, training, Path(scratch)))
    except (TrainingError, BundleError) as error:
        return Champion("unusable", version.number, str(error)), None
    keys = rows[list(KEYS)].reset_index(drop=True)
    return Champion("scored", version.number), keys.assign(score=scores)


def aligned(
    champion: Champion, scored: pd.DataFrame | None, test: pd.DataFrame
) -> tuple[Champion, NDArray[np.float64] | None]:
    """The champion's score of each row of `test`, or the champion as unusable if a row has none."""
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


def _fetch(version: Version, training: TrainingConfig, folder: Path) -> Path:
    """The unpacked archive of a version."""
    from mlflow.artifacts import download_artifacts

    with reaching(training.tracking_uri):
        downloaded = download_artifacts(
            version.source, dst_path=str(folder / "mar"), tracking_uri=training.tracking_uri
        )
    archives = sorted(Path(downloaded).rglob("*.mar"))
    wanted = version.tags.get("archive_sha256")
    for archive in archives:
        if hashlib.sha256(archive.read_bytes()).hexdigest() == wanted:
            try:
                with zipfile.ZipFile(archive) as content:
                    content.extractall(folder / "model")
            except zipfile.BadZipFile:
                raise TrainingError("its archive is no zip file; register the model again") from None
            return folder / "model"
    raise TrainingError("its archive is missing or not the one that was registered; register the model again")


def _scored(rows: pd.DataFrame, spec: FeaturesConfig, folder: Path) -> NDArray[np.float64]:
    bundle = read_bundle(folder)
    if bundle.spec_digest != spec.digest():
        raise TrainingError(
            f"was trained on feature spec {bundle.spec_digest[:12]}, these rows are of {spec.digest()[:12]}"
        )
    columns = {name: rows[name].to_numpy() for name in bundle.inputs}
    numeric, codes = encode(columns, bundle.numeric, bundle.vocabulary)
    return score(load_program(bundle.program), numeric, codes)
