"""`churn rollout judge`: a past rollout under the policy of today, or one given by --set."""

import json
from argparse import Namespace

from churn import console
from churn.settings import Settings


def judge(settings: Settings, arguments: Namespace) -> int:
    """Rules, alpha and blocks of these settings, on what was counted then. Exit code 3: rolled back."""
    from rollout.again import judge_again
    from rollout.errors import RolloutError
    from rollout.records import verdict_record
    from rollout.store import Store

    store = Store(settings.rollout.database, settings.rollout.lease_s)
    rollout = store.load(arguments.id) if arguments.id else store.newest(settings.serving.model_name)
    counts = [] if rollout is None else store.observations(rollout.id)
    judged = None if rollout is None else judge_again(rollout, counts, settings.rollout)
    if rollout is None or judged is None:
        raise RolloutError(
            "rollout judge: nothing was counted yet; `churn rollout history --all` names rollouts"
        )
    code = 3 if judged.harm else 0
    seconds = (judged.at - rollout.started).total_seconds()
    if arguments.json:
        record = {
            "rollout": rollout.id,
            "phase": rollout.phase,
            "rolled_back": bool(judged.harm),
            "at": judged.at.isoformat(),
            "seconds": seconds,
            "weight": judged.weight,
            "canary_requests": judged.canary_requests,
            "verdicts": [verdict_record(verdict) for verdict in judged.verdicts],
        }
        console.out.print_json(json.dumps(record))
        return code
    what = "rolled back" if judged.harm else "not rolled back"
    title = (
        f"Rollout {rollout.id} ({rollout.phase.replace('_', ' ')}) would have been {what}: after"
        f" {seconds:,.0f} s, at {judged.weight} %, {judged.canary_requests:,} canary requests in that stage"
    )
    rows = [(v.rule, v.answer.replace("_", " "), v.reason) for v in judged.verdicts]
    console.table(title, ("rule", "answer", "why"), rows)
    return code
