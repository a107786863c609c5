"""Dashboards "Model quality" and "Drift and data": the newest run of the monitor and those before."""

from monitoring.grafana.panels import Dashboard, Panel, Query, queries

FINDING = "{{check}}: {{subject}}"
SINCE_RUN = Panel(
    "Since the last run of the monitor",
    queries(("time() - max by (model) (churn_monitor_last_success_timestamp_seconds)", "{{model}}")),
    "A ticket is made after one and a half intervals.",
    "s",
    "stat",
    width=6,
)
OPEN = Panel(
    "Findings of the newest run",
    queries(("max by (severity) (churn_monitor_open)", "{{severity}}")),
    "Pages are harm, skew, staleness and corruption; drift is a ticket or a line of the digest.",
    kind="stat",
    width=6,
)


def measured(title: str, name: str, meaning: str, unit: str = "short", interval: bool = False) -> Panel:
    """A measurement by version and subject, with its 95 % interval."""
    parts = [Query(f"churn_measured_{name}", "{{version}} {{subject}}")]
    if interval:
        parts += [
            Query(f"churn_measured_{name}_{end}", f"{end} {{{{version}}}} {{{{subject}}}}")
            for end in ("low", "high")
        ]
    return Panel(title, tuple(parts), meaning, unit)


QUALITY = Dashboard(
    "churn-quality",
    "Churn: model quality",
    "How well the model in service predicts what came true, and whether another model would lose less.",
    (
        SINCE_RUN,
        OPEN,
        Panel(
            "End of the time that was judged",
            queries(("max by (model) (churn_monitor_window_end_timestamp_seconds) * 1000", "{{model}}")),
            "Outcomes are known only one horizon after a prediction.",
            "dateTimeFromNow",
            "stat",
            width=6,
        ),
        Panel(
            "Database of the exporter",
            queries(
                ("max(churn_exporter_database_reachable)", "reachable"),
                ("time() - max(churn_exporter_last_success_timestamp_seconds)", "seconds since it was read"),
            ),
            "0: all values on this page are old.",
            kind="stat",
            width=6,
        ),
        measured(
            "Log-loss on known outcomes",
            "late_log_loss_nats",
            "Of the newest predictions whose horizon has passed, by version and segment; lower is better.",
            interval=True,
        ),
        measured(
            "AUROC on known outcomes",
            "late_auroc",
            "0.5 is a guess, 1 is perfect.",
            interval=True,
        ),
        measured(
            "Calibration error on known outcomes",
            "late_ece",
            "Mean difference of score and churn rate; 0 is perfect.",
            "percentunit",
        ),
        measured(
            "Lift on known outcomes",
            "late_lift",
            "Churn rate among the highest scores, in multiples of the rate of all.",
        ),
        measured(
            "Profit on known outcomes",
            "late_profit",
            "Of a customer, in the currency of configs/decision.yaml, when offers follow the scores.",
        ),
        measured(
            "Churn rate",
            "late_churn_rate",
            "Share of customers who did not return.",
            "percentunit",
        ),
        Panel(
            "Pages about harm that were right",
            queries(
                ("max by (model) (churn_monitor_pages_right)", "right"),
                ("max by (model) (churn_monitor_pages_graded)", "graded"),
            ),
            "A page was right when the training that it asked for was worth its cost.",
            kind="stat",
        ),
        Panel(
            "Findings of harm",
            queries(('sum by (check, subject) (churn_monitor_findings{cause="harm"}) or vector(0)', FINDING)),
            "0 in a healthy system.",
        ),
    ),
)

DRIFT = Dashboard(
    "churn-drift",
    "Churn: drift and data",
    "Whether data are fresh and right, and which inputs have another distribution.",
    (
        SINCE_RUN,
        OPEN,
        Panel(
            "Findings",
            queries("max by (check, subject, cause, severity) (churn_monitor_findings)"),
            "All findings of the newest run. What another finding explains has the severity digest.",
            kind="table",
        ),
        Panel(
            "Findings over time",
            queries(("sum by (cause, severity) (churn_monitor_findings)", "{{cause}} {{severity}}")),
            "A finding lasts from one run to the next.",
        ),
        measured(
            "Age of data",
            "age_days",
            "Newest row of each source; limits: monitoring.staleness.",
            "d",
        ),
        measured(
            "Difference from the training rows",
            "psi_training",
            "Population stability index by feature, among customers of equal tenure. Over 0.25 is large.",
        ),
        measured(
            "Share of missing values",
            "missing_share",
            "By feature. A rise of over 10 % is a finding.",
            "percentunit",
        ),
        Panel(
            "Scores",
            queries(
                (
                    "histogram_quantile(0.5, sum by (le, model_version)"
                    " (rate(churn_score_bucket[$__rate_interval])))",
                    "median {{model_version}}",
                ),
                (
                    "histogram_quantile(0.9, sum by (le, model_version)"
                    " (rate(churn_score_bucket[$__rate_interval])))",
                    "p90 {{model_version}}",
                ),
            ),
            "Scores that were answered.",
            "percentunit",
        ),
        Panel(
            "Missing features at serving",
            queries(
                (
                    "sum by (feature) (rate(churn_feature_missing_total[$__rate_interval]))"
                    " / on () group_left () sum(rate(churn_feature_vectors_total[$__rate_interval]))",
                    "{{feature}}",
                )
            ),
            "Share of customers for whom the store has no value.",
            "percentunit",
        ),
    ),
)
