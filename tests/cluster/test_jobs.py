"""Jobs on a real cluster, in the order of these tests: trials that pods share while one of them is killed,
scores in parts, and a retraining. `kserve/components/jobs` is applied with smaller requests.
"""

from collections.abc import Iterator
from uuid import uuid4

import optuna
import pytest
from optuna.trial import TrialState

from support.cluster.addresses import Addresses
from support.cluster.inventory import done
from support.cluster.jobs import Jobs, workspaces
from support.waits import within

TRIALS = 8


@pytest.fixture(scope="module")
def jobs(stores: Addresses) -> Iterator[Jobs]:
    namespace = f"jobs-{uuid4().hex[:6]}"
    made = Jobs(workspaces() / namespace, stores, namespace)
    try:
        made.configure(str(made.log), f"{namespace}-first")
        for words in (["ingest"], ["features", "build"], ["features", "materialize"], ["train"], ["gates"],
                      ["package"]):  # fmt: skip
            made(*words)
        made.record_first_model()
        made("score", "--out", str(made.folder / "whole.parquet"))
        # from here on by the pods
        made.configure("/workspace/log.csv", namespace, trials=TRIALS, heartbeat_s=1, grace_s=5)
        made.hand_over()
        made.apply()
        yield made
    finally:
        made.remove()


def test_pods_share_the_trials_and_a_killed_one_loses_none(jobs: Jobs) -> None:
    job = jobs.start("churn-tune", "--set", "training.epochs=40")
    storage = jobs.database("optuna")
    (name,) = within(400, lambda: optuna.get_all_study_names(storage), lambda: jobs.words(job), Exception)
    study = optuna.load_study(study_name=name, storage=storage)

    def running() -> bool:
        return bool(study.get_trials(states=(TrialState.RUNNING,))) and bool(
            study.get_trials(states=(TrialState.COMPLETE,))
        )

    within(400, running, lambda: jobs.words(job))
    # the worker of a trial that runs: its pod is removed without a moment to give the trial back
    busy = study.get_trials(states=(TrialState.RUNNING,))
    before = {t.number: t.value for t in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))}
    alive = [p["metadata"]["name"] for p in jobs.pods(job) if p["status"]["phase"] == "Running"]
    done("delete", "pod", "-n", jobs.namespace, "--grace-period=0", "--force", *alive[:1])
    status = jobs.complete(job)

    trials = study.get_trials()
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(ended) == TRIALS
    assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert all(trials[number].value == value for number, value in before.items())
    again = [t.system_attrs["failed_trial"] for t in trials if "failed_trial" in t.system_attrs]
    assert again == [t.number for t in trials if t.state == TrialState.FAIL]
    print(f"killed {alive[:1]} while {len(busy)} ran; run again: {again}; status {status}")
    assert (jobs.var / "tuned.json").is_file()


def test_the_merged_parts_are_the_list_made_at_once(jobs: Jobs) -> None:
    jobs.complete(jobs.start("churn-score"))
    jobs.complete(jobs.start("churn-merge"))
    merged, whole = jobs.var / "customers.parquet", jobs.folder / "whole.parquet"
    assert sorted(file.name for file in (jobs.var / "customers.parquet.parts").iterdir()) == [
        f"{number}-of-3.parquet" for number in range(3)
    ]
    assert merged.read_bytes() == whole.read_bytes()


def test_a_missing_part_ends_the_merge_with_its_command(jobs: Jobs) -> None:
    (jobs.var / "customers.parquet.parts" / "1-of-3.parquet").unlink()
    job = jobs.start("churn-merge")
    within(200, lambda: "churn score --part 1/3" in " ".join(jobs.words(job).split()))
    done("delete", "job", job, "-n", jobs.namespace)


def test_a_retraining_ends_with_a_rollout(jobs: Jobs) -> None:
    jobs.more_purchases()
    job = jobs.start("churn-retrain", "--force", "--reason", "three months have passed")
    jobs.complete(job)
    assert "was started" in " ".join(jobs.words(job).split())
