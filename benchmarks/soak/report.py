"""The figures of a soak, what fails it, and its plot."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.soak.events import Event
from benchmarks.soak.load import Answer
from benchmarks.soak.sampling import Sample
from handlers.telemetry import STORE_DOWN

FEATURE_STORE = "redis"
TRIES_AGAIN_WITHIN_S = 5.0
LABELLED_FROM_S = 60.0
"""Labels of shorter events would lie on one another in the plot."""
WARM_UP = 0.25
"""This share of the time is not judged: caches fill, and the first candidate loads."""
MOST_GROWTH = 0.10
"""Memory or descriptors of a part may grow by this share in an hour, and by MOST_MEGABYTES at least."""
MOST_MEGABYTES, MOST_DESCRIPTORS = 50.0, 20.0


def growth(samples: Sequence[Sample]) -> pd.DataFrame:
    """Per part: median memory (MB) and descriptors, and what they grow by in an hour. Slopes are Theil and
    Sen's, the median of all pairs' (Sen, 1968), on which single peaks of a rollout have no influence."""
    table = pd.DataFrame(samples)
    table = table[table["at"] >= table["at"].min() + WARM_UP * (table["at"].max() - table["at"].min())]
    rows = []
    for part, one in table.groupby("part"):
        hours = one["at"].to_numpy() / 3600
        rows.append(
            (part, one["processes"].median(), one["megabytes"].median(), slope(hours, one["megabytes"]),
             one["descriptors"].median(), slope(hours, one["descriptors"]))
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["part", "processes", "mb", "mb_per_hour", "fds", "fds_per_hour"])


def slope(x: np.ndarray, values: pd.Series) -> float:
    from scipy.stats import theilslopes

    return float(theilslopes(values.to_numpy(dtype=np.float64), x).slope)


def latencies(answers: Sequence[Answer]) -> pd.DataFrame:
    """Per minute: requests, failures, and p50 and p99 in ms."""
    table = pd.DataFrame(answers)
    table["minute"] = ((table["at"] - table["at"].min()) // 60).astype(int)
    ms = table.groupby("minute")["seconds"].quantile([0.5, 0.99]).unstack() * 1000
    return pd.DataFrame(
        {
            "requests": table.groupby("minute").size(),
            "failed": table[table["status"] != 200].groupby("minute").size(),
            "p50_ms": ms[0.5],
            "p99_ms": ms[0.99],
        }
    ).fillna({"failed": 0})


def faults(
    growths: pd.DataFrame,
    answers: Sequence[Answer],
    logged: Counter[tuple[str, str]],
    events: Sequence[Event],
) -> list[str]:
    """What must not be, a line each. `logged`: request and variant -> how often the log has the pair."""
    found = [f"{event.what}: {event.outcome}" for event in events if event.outcome.startswith("exit code")]
    for row in growths[~growths["part"].str.startswith("disk")].itertuples():
        if row.mb_per_hour > max(MOST_GROWTH * row.mb, MOST_MEGABYTES):
            found.append(f"{row.part}: memory grows by {row.mb_per_hour:.0f} MB an hour from {row.mb:.0f}")
        if row.fds_per_hour > max(MOST_GROWTH * row.fds, MOST_DESCRIPTORS):
            found.append(f"{row.part}: descriptors grow by {row.fds_per_hour:.0f} an hour from {row.fds:.0f}")
    failed = [one for one in answers if one.status != 200 and not is_stated(one, events)]
    if failed:
        found.append(f"failed requests: {dict(Counter(f'{one.status} {one.outcome}' for one in failed))}")
    answered = [one.id for one in answers if one.status == 200]
    requests = {request for request, _ in logged}
    if lost := [id for id in answered if id not in requests]:
        found.append(f"{len(lost)} answers are not in the prediction log, the first {lost[0]}")
    if twice := [request for (request, _), times in logged.items() if times > 1]:
        found.append(f"{len(twice)} answers are in the prediction log twice, the first {twice[0]}")
    return found


def is_stated(answer: Answer, events: Sequence[Event]) -> bool:
    """Whether docs/serving.md states this refusal: 503 for a customer whose features no worker has read yet,
    while the feature store is away and until the worker tries it again."""
    away = [event for event in events if event.what == f"{FEATURE_STORE} killed"]
    return (answer.status, answer.code) == (503, STORE_DOWN) and any(
        event.begun <= answer.at + answer.seconds and answer.at <= event.ended + TRIES_AGAIN_WITHIN_S
        for event in away
    )


def plot(samples: Sequence[Sample], minutes: pd.DataFrame, events: Sequence[Event], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    table = pd.DataFrame(samples)
    begun = table["at"].min()
    table["minute"] = (table["at"] - begun) / 60
    figure, axes = plt.subplots(3, 1, figsize=(10, 9), sharex=True, layout="constrained")
    parts = [(part, one) for part, one in table.groupby("part") if not str(part).startswith("disk")]
    for part, one in parts:
        axes[0].plot(one["minute"], one["megabytes"], label=part)
        axes[1].plot(one["minute"], one["descriptors"], label=part)
    axes[0].set_ylabel("memory, MB")
    axes[1].set_ylabel("file descriptors")
    axes[2].plot(minutes.index, minutes["p50_ms"], label="p50")
    axes[2].plot(minutes.index, minutes["p99_ms"], label="p99")
    axes[2].set(ylabel="latency, ms", xlabel="minutes", yscale="log")
    axes[2].yaxis.set_major_formatter("{x:g}")
    axes[2].yaxis.set_minor_formatter("{x:g}")
    for axis in axes:
        axis.legend(loc="upper left", fontsize=8)
        axis.grid(alpha=0.3)
        for event in events:
            axis.axvspan((event.begun - begun) / 60, (event.ended - begun) / 60, alpha=0.08, color="grey")
    for event in (one for one in events if one.ended - one.begun > LABELLED_FROM_S):
        axes[0].text((event.begun - begun) / 60, axes[0].get_ylim()[1], event.what, rotation=60, fontsize=6)
    figure.savefig(file, dpi=110)
    plt.close(figure)
