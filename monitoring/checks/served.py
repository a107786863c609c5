"""What the prediction log states about serving: how many customers, from which features."""

import pandas as pd

from monitoring.checks.shares import History, Judged, Margin
from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Checked, Finding, Measurement, Severity

KINDS = ("served_stale", "served_unknown", "served_fewer")
"""Names of the shares. Each is a measurement `<kind>_share`, from which later runs read the past."""

MESSAGES = {
    "served_stale": "predictions: {share:.1%} of customers got a score from stale or missing features, more"
    " than {bound:.1%}; run `churn features materialize`, and check the online store",
    "served_unknown": "predictions: {share:.1%} of customers have no features (cold start), more than"
    " {bound:.1%}; check that new customers are ingested, and the masking key",
    "served_fewer": "predictions: {share:.1%} of the customers of the newest snapshot got no score, more than"
    " {bound:.1%}; check the callers, and that the prediction log drops no records",
}


def check(counts: pd.DataFrame, past: pd.DataFrame, config: MonitoringConfig) -> Checked:
    """Findings of cause staleness.

    `counts` has a row for each kind of this window: `kind`, `hits`, `rows`. `past`: the same of earlier runs
    whose windows do not overlap, with `at`.
    """
    findings: list[Finding] = []
    measured: list[Measurement] = []
    for row in counts.to_dict("records"):
        kind, hits, rows = str(row["kind"]), float(row["hits"]), int(row["rows"])
        steps = history(kind, config)
        for before in past[past["kind"] == kind].sort_values("at").to_dict("records"):
            steps.add(float(before["hits"]), float(before["rows"]))
        judged: Judged = steps.add(hits, rows)
        share = hits / rows if rows else float("nan")
        measured.append(Measurement(f"{kind}_share", share, rows))
        if judged.is_alarm:
            numbers = {"share": judged.share, "bound": judged.bound, "customers": float(rows)}
            text = MESSAGES[kind].format(share=judged.share, bound=judged.bound)
            findings.append(Finding(kind, "predictions", Cause.STALENESS, Severity.PAGE, text, numbers))
    return Checked(measured, findings)


def check_drops(counts: pd.DataFrame, config: MonitoringConfig) -> Checked:
    """A finding of cause staleness where workers dropped more than `staleness.dropped_share` of the records.

    `counts` has at most one row, with `written` and `dropped`. This is a fact and no estimate.
    """
    for row in counts.to_dict("records"):
        dropped, total = int(row["dropped"]), int(row["dropped"]) + int(row["written"])
        share = dropped / total if total else float("nan")
        measured = [Measurement("log_dropped_share", share, total)]
        if not share > config.staleness.dropped_share:
            return Checked(measured)
        text = (
            f"predictions: {dropped:,} of {total:,} records were dropped ({share:.1%}), so that skew, scores"
            " and performance are measured on the rest; see docs/runbooks/ChurnPredictionLogDrops.md"
        )
        numbers = {"dropped": float(dropped), "records": float(total)}
        finding = Finding("log_dropped", "predictions", Cause.STALENESS, Severity.PAGE, text, numbers)
        return Checked(measured, [finding])
    return Checked()


def history(kind: str, config: MonitoringConfig) -> History:
    """An empty history of this kind."""
    level = config.level(kind, 1)
    if kind == "served_fewer":
        margin = Margin(config.arrivals.volume_ratio, is_ratio=True, of_rest=True)
        return History(margin, level, config.min_rows, length=config.history)
    size = config.staleness.stale_share if kind == "served_stale" else config.staleness.unknown_share
    # no prediction is from stale features when all is well, so that the first window is judged already
    return History(Margin(size), level, config.min_rows, baseline=0.0, length=config.history)
