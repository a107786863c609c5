"""The log of purchases in the wheel of Lifetimes: 69,659 rows of 23,570 customers, 1997 and 1998."""

from importlib.metadata import distribution
from pathlib import Path

import pandas as pd


def cdnow_file() -> Path:
    return Path(
        str(next(f for f in distribution("Lifetimes").files or [] if f.name == "CDNOW_master.txt").locate())
    )


def cdnow_log() -> pd.DataFrame:
    """customer (their number as text, with its leading zeros), timestamp (UTC), amount, quantity."""
    names = ["customer", "date", "quantity", "amount"]
    raw = pd.read_csv(cdnow_file(), sep=r"\s+", header=0, names=names, dtype={"customer": str, "date": str})
    return pd.DataFrame(
        {
            "customer": raw["customer"],
            "timestamp": pd.to_datetime(raw["date"], format="%Y%m%d", utc=True).astype("datetime64[us, UTC]"),
            "amount": raw["amount"].astype(float),
            "quantity": raw["quantity"].astype(float),
        }
    )
