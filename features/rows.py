"""The inputs of a spec for given customers and moments, computed from the records."""

import tempfile
from datetime import UTC
from pathlib import Path

import numpy as np
import pandas as pd

from core.errors import FeatureError
from core.workspace import Workspace, link_version
from features.build import build_features
from features.records import read_records
from features.spec import FeaturesConfig

KEYS = ["user_id", "event_timestamp"]


def inputs_at(spec: FeaturesConfig, files: Workspace, rows: pd.DataFrame) -> pd.DataFrame:
    """The inputs of `spec`, numeric ones first, for each of `rows` (user_id, event_timestamp), in order.

    They are computed from the records of `files`, whether or not the spec is in the feature store, and for
    all customers of `rows`, whether or not they are eligible by it. Raises FeatureError for records that lack
    a column that the spec reads, or a customer.
    """
    every = spec.model_copy(update={"eligible": None})
    with tempfile.TemporaryDirectory(prefix=".features-", dir=files.root) as folder:
        scratch = Workspace(Path(folder))
        link_version(files.data, scratch.data)
        moments = None
        if read_records(files)[0]["shape"] == "transactions":
            moments = [moment.to_pydatetime().astimezone(UTC) for moment in rows["event_timestamp"].unique()]
        build_features(every, scratch, moments, lambda message: None, labels=False)
        built = pd.read_parquet(scratch.snapshots)
    keys = rows[KEYS].reset_index(drop=True)
    found = keys.merge(
        built.drop_duplicates(KEYS), on=KEYS, how="left", validate="many_to_one", indicator=True
    )
    if missing := int((found["_merge"] != "both").sum()):
        raise FeatureError(
            f"features.service {spec.service}: {missing:,} of {len(keys):,} rows have no records; run"
            " `churn ingest` again"
        )
    for ratio in spec.derived:
        top, bottom = (
            found[part].to_numpy(dtype=np.float64) for part in (ratio.numerator, ratio.denominator)
        )
        found[ratio.name] = top / np.maximum(bottom, ratio.floor)
    inputs: pd.DataFrame = found[[*spec.numeric, *spec.categorical]]
    return inputs
