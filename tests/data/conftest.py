"""Fixtures that write small tables to files, and ingest them."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.workspace import Workspace
from data.config import DataConfig
from data.ingest import ingest
from support.data_tables import AS_OF, KEY, Configure, Ingest


@pytest.fixture(autouse=True)
def mask_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHURN_MASK_KEY", KEY)


@pytest.fixture
def files(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "var")


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """A config of the table (a frame, the text of a CSV, or a path); further arguments are of the source."""

    def build(table: pd.DataFrame | str | Path, shape: str = "transactions", **source: Any) -> DataConfig:
        path = table if isinstance(table, Path) else tmp_path / "table.csv"
        if isinstance(table, pd.DataFrame):
            table.to_csv(path, index=False)
        elif isinstance(table, str):
            path.write_text(table, encoding="utf-8")
        columns = {
            "transactions": {"user_id": "customer", "timestamp": "when", "amount": "paid"},
            "labelled": {"user_id": "customer", "target": "churned"},
        }[shape]
        ours = {name: source.pop(name) for name in ("expectations", "max_rejected_share") if name in source}
        return DataConfig.model_validate(
            {
                "shape": shape,
                "observed_at": "2025-01-01T00:00:00Z" if shape == "labelled" else None,
                "source": {"kind": "csv", "uri": str(path), "columns": columns, **source},
                "expectations": [],
                **ours,
            }
        )

    return build


@pytest.fixture
def run(files: Workspace) -> Ingest:
    def ingested(config: DataConfig, as_of: datetime = AS_OF) -> dict[str, Any]:
        return ingest(config, files, as_of)

    return ingested
