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
                ("max(churn_rollout_running) > bool max(churn_rollout_controlled)", "no controller"),
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
            "Many that were rolled back: the gates let too much pass.",
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
        Panel(
            "Decisions of the governor",
            queries("max by (action, trigger, obstacle) (churn_retraining_decisions_total)"),
            "What asked for a training, the answer, and what stood against it.",
            kind="table",
        ),
        Panel(
            "Retrainings by outcome",
            queries(("max by (outcome) (churn_retraining_runs)", "{{outcome}}")),
            "refused: the gates refused the candidate; failed: a step failed.",
            kind="stat",
            width=6,
        ),
        Panel(
            "Retraining now",
            queries(
                ("max by (model) (churn_retraining_failures_in_a_row)", "failures in a row"),
                ("max by (model) (churn_retraining_vetoed)", "vetoed"),
            ),
            "Failures since the last retraining that did not fail, and whether wrong data forbid a training.",
            kind="stat",
            width=6,
            limit=1,
        ),
        Panel(
            "Since the last decision and the last retraining",
            queries(
                ("time() - max by (model) (churn_retraining_last_decision_timestamp_seconds)", "decision"),
                ("time() - max by (model) (churn_retraining_last_success_timestamp_seconds)", "retraining"),
                ("time() - max by (model) (churn_retraining_running_since_timestamp_seconds)", "running"),
            ),
            "running is shown only while a retraining runs.",
            "s",
            "stat",
        ),
        Panel(
            "Grades of decisions",
            queries(("max by (action, grade) (churn_retraining_grades_total)", "{{action}}: {{grade}}")),
            "Decisions whose labels have matured: was it right to train, or not to train?",
            kind="stat",
        ),
    ),
)
