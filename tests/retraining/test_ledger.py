"""The ledger: repeated and reordered wake-ups, rows that can be derived again, runs that are fenced."""

import random
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from churn.settings import load_settings
from retraining.config import RetrainConfig
from retraining.decision import Action, Evidence, Outcome
from retraining.ledger import Entry, Ledger, derived_again
from rollout.database.fencing import Fence
from rollout.errors import LeaseHeld, Overtaken, RolloutError
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate
from support.retraining_situations import CORRUPT, DRIFT, HARM, VERSION, day, evidence, window
from support.rollout_database import postgres_server, uri  # noqa: F401

POLICY = RetrainConfig()


def wake(ledger: Ledger, found: Evidence, at: float, by: str = "cron") -> Entry:
    return ledger.decide(POLICY, ledger.state("churn", VERSION, day(0)), found, day(at), by)


def finish(ledger: Ledger, at: float, outcome: Outcome = Outcome.REFUSED) -> None:
    run = ledger.active("churn")
    assert run is not None
    token = ledger.take_token("churn", "test", day(at), 10)
    fence = Fence("churn", run.id, token)
    ledger.end(fence, outcome, "", day(at))
    ledger.release_token(fence, day(at))


def summary(ledger: Ledger) -> list[tuple[object, ...]]:
    return [
        (entry.evidence_sha256, entry.decision.action, entry.decision.trigger, entry.decision.obstacle)
        for entry in ledger.entries("churn")
    ]


def test_a_repeated_wake_up_writes_nothing_and_grants_nothing(uri: str) -> None:  # noqa: F811
    ledger = Ledger(uri)
    found = evidence(window(40, HARM))
    first = wake(ledger, found, 40)
    assert first.is_new and first.decision.granted
    for at in (40, 40.1, 300):
        again = wake(ledger, found, at, "webhook")
        assert not again.is_new and again.number == first.number
    assert len(ledger.runs("churn")) == 1
    finish(ledger, 41)
    assert not wake(ledger, found, 400).is_new, "evidence that was trained on asks for no second training"
    assert len(ledger.runs("churn")) == 1


def test_an_answer_that_time_changes_is_a_row_of_its_own(uri: str) -> None:  # noqa: F811
    ledger = Ledger(uri)
    found = evidence(window(85))
    assert [wake(ledger, found, at).decision.action for at in (85, 86, 90, 91)] == [
        Action.NO, Action.NO, Action.YES, Action.YES,
    ]  # fmt: skip
    assert len(ledger.entries("churn")) == 2


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), repeats=st.integers(1, 4))
def test_repeated_and_reordered_wake_ups_give_the_same_ledger(
    tmp_path_factory: pytest.TempPathFactory, seed: int, repeats: int
) -> None:
    """A wake-up has no content: each reads what the database holds at its time."""
    draws = random.Random(seed)
    checks = [draws.choice([(), (HARM,), (DRIFT,), (CORRUPT,), (HARM, CORRUPT)]) for _ in range(12)]

    def play(wakes: int, sources: list[str]) -> list[tuple[object, ...]]:
        folder: Path = tmp_path_factory.mktemp("ledger")
        ledger = Ledger(f"sqlite:///{folder}/rollout.db")
        for number in range(1, len(checks) + 1):
            windows = [window(7 * (i + 1), *checks[i]) for i in range(max(0, number - 4), number)]
            for count in range(wakes):
                wake(ledger, evidence(*windows), 7 * number, sources[count % len(sources)])
            if ledger.active("churn") is not None:
                finish(ledger, 7 * number + 0.5)
        assert all(derived_again(entry) == [] for entry in ledger.entries("churn"))
        return summary(ledger)

    sources = ["cron", "webhook", "dag"]
    once = play(1, sources)
    draws.shuffle(sources)
    assert play(repeats, sources) == once


def test_a_lost_wake_up_delays_a_training_and_does_not_lose_it(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/rollout.db")
    wake(ledger, evidence(window(33)), 33)
    # nothing woke the governor at day 40, when harm was found
    assert wake(ledger, evidence(window(33), window(40, HARM), window(47)), 47).decision.granted


def test_every_row_is_derived_again_and_a_change_is_found(uri: str) -> None:  # noqa: F811
    ledger = Ledger(uri)
    ledger.ask("churn", "ada", "a new tariff", True, day(46))
    asked = evidence(window(46, CORRUPT), request=ledger.waiting("churn"))
    for found, at in (
        (evidence(window(40)), 40), (evidence(window(44, HARM, CORRUPT)), 44), (asked, 46),
    ):  # fmt: skip
        wake(ledger, found, at)
    entries = ledger.entries("churn")
    assert [entry.decision.action for entry in entries] == [Action.NO, Action.VETOED, Action.YES]
    assert ledger.waiting("churn") is None, "the request was answered"
    assert [derived_again(entry) for entry in entries] == [[], [], []]
    changed = Entry(**{**entries[1].__dict__, "evidence": {**entries[1].evidence, "windows": []}})
    assert "evidence_sha256" in derived_again(changed) and "reason" in derived_again(changed)


def test_the_database_refuses_a_change_of_the_ledger(uri: str) -> None:  # noqa: F811
    ledger = Ledger(uri)
    wake(ledger, evidence(window(40)), 40)
    for statement in ("UPDATE retraining_decisions SET reason = ''", "DELETE FROM retraining_decisions"):
        with pytest.raises(SQLAlchemyError, match="appended only"), ledger._engine.begin() as connection:
            connection.exec_driver_sql(statement)


def test_one_run_at_a_time_is_a_rule_of_the_database(uri: str) -> None:  # noqa: F811
    """Two governors have read the same state before either of them wrote."""
    ledger = Ledger(uri)
    before = ledger.state("churn", VERSION, day(0))
    assert ledger.decide(POLICY, before, evidence(window(40, HARM)), day(40), "cron").decision.granted
    with pytest.raises(RolloutError, match="another process has just begun"):
        ledger.decide(POLICY, before, evidence(window(41, HARM)), day(41), "webhook")
    assert len(ledger.entries("churn")) == 1, "the refused decision left no row"


def test_tokens_grow_and_an_older_one_writes_nothing(uri: str) -> None:  # noqa: F811
    ledger = Ledger(uri)
    wake(ledger, evidence(window(40, HARM)), 40)
    run = ledger.active("churn")
    assert run is not None
    first = Fence("churn", run.id, ledger.take_token("churn", "a", day(40), 60))
    with pytest.raises(LeaseHeld, match="process a runs a retraining"):
        ledger.take_token("churn", "b", day(40), 60)
    later = day(40) + timedelta(seconds=61)
    second = Fence("churn", run.id, ledger.take_token("churn", "b", later, 60))
    assert second.token > first.token
    for write in (
        lambda: ledger.record_step(first, "train", "ended", later),
        lambda: ledger.renew_token(first, later, 60),
        lambda: ledger.record_candidate(first, Candidate("a.mar", "0" * 64, VERSION)),
        lambda: ledger.end(first, Outcome.REFUSED, "", later),
    ):
        with pytest.raises(Overtaken, match="token 1 is no longer the newest"):
            write()
    assert ledger.steps(run.id) == [] and ledger.active("churn") == run
    ledger.end(second, Outcome.ROLLED_OUT, "", later)
    assert ledger.active("churn") is None


def test_the_start_of_a_rollout_checks_the_token_in_its_own_transaction(uri: str) -> None:  # noqa: F811
    """The start is refused as a whole: no rollout, no event, and the run names none."""
    ledger, store, config = Ledger(uri), Store(uri), load_settings().rollout
    wake(ledger, evidence(window(40, HARM)), 40)
    run = ledger.active("churn")
    assert run is not None
    old = Fence("churn", run.id, ledger.take_token("churn", "a", day(40), 1))
    new = Fence("churn", run.id, ledger.take_token("churn", "b", day(41), 1))
    change = Change(Candidate("a.mar", "0" * 64, VERSION), None, "cron", day(41), "retraining")
    with pytest.raises(Overtaken, match="another process has taken the run over"):
        store.start("churn", change, config, fence=old)
    assert store.all("churn") == [] and ledger.runs("churn")[0].rollout is None
    begun = store.start("churn", change, config, fence=new)
    assert ledger.runs("churn")[0].rollout == begun.id
    with pytest.raises(Overtaken, match="has started its rollout or has ended"):
        store.start("churn", change, config, fence=new)
    assert [rollout.id for rollout in store.all("churn")] == [begun.id]
