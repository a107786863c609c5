"""Dashboard "Rollouts and retraining": the newest rollout, what the governor decided, and its runs."""

from monitoring.grafana.panels import Dashboard, Panel, queries

ROLLOUTS = Dashboard(
    "churn-rollouts",
    "Churn: rollouts and retraining",
    "How new models come to customers, and why models are trained or not.",
    (
        Panel(
            "Rollout now",
            queries(("churn_rollout_phase == 1", "{{phase}}")),
            "Phase of the newest rollout; promoted, rolled_back and aborted are its ends.",
            kind="stat",
            width=6,
        ),
        Panel(
            "Needs a person",
            queries(
                ("max(churn_rollout_paused)", "paused"),
                ("max(churn_rollout_stuck)", "stuck"),
                ("max(churn_rollout_running) - max(churn_rollout_controlled) > bool 0", "no controller"),
            ),
            "0 in a healthy system.",
            kind="stat",
            width=6,
            limit=1,
        ),
        Panel(
            "As recorded in the database",
            queries(("min by (projection) (churn_rollout_agrees)", "{{projection}}")),
            "1: target and registry are as recorded.",
            kind="stat",
            width=6,
        ),
        Panel(
            "All rollouts by phase",
            queries(("max by (phase) (churn_rollouts)", "{{phase}}")),
            "A large share of rolled_back says that the gates let too much pass.",
            kind="stat",
            width=6,
        ),
        Panel(
            "Requests by version",
            queries(
                ("sum by (model_version) (rate(churn_requests_total[$__rate_interval]))", "{{model_version}}")
            ),
            "The share of the canary grows with the stages.",
            "reqps",
        ),
        Panel(
            "Phases over time",
            queries(("churn_rollout_phase == 1", "{{phase}}")),
            "Which phase the newest rollout was in.",
        ),
    ),
)
