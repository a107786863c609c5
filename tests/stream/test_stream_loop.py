"""The stream beside the loop: a later materialize and an erasure."""

from datetime import datetime, timedelta
from pathlib import Path

import yaml

from churn.cli import main
from churn.settings import Settings, load_settings
from pipelines.context import Context
from pipelines.forget import forget
from pipelines.steps.data import fill_online_store
from pipelines.streaming import load, streaming, work_of
from support.stream_workspace import END, Row, Shop, message, shop, vectors

NOW = END + timedelta(days=2)
NEW: Row = (99, END.isoformat(), 7.0, 1.0, "new customer")
KNOWN: Row = (1, END.isoformat(), 8.0, 1.0, "known customer")


def streamed_settings(made: Shop) -> Settings:
    """The settings of the workspace, in whose stream two purchases have arrived."""
    content = {
        "workspace": str(made.files.root),
        "data": made.data.model_dump(mode="json"),
        "stream": {"brokers": "127.0.0.1:1"},
    }
    overlay = made.files.root.parent / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(content, sort_keys=False))
    settings = load_settings(overlays=[overlay])
    with streaming(settings) as parts:
        assert load(settings, parts) == len(made.history)
        outcome = work_of(settings, parts, lambda: NOW).apply([message(NEW), message(KNOWN)])
        assert (outcome.new, outcome.customers) == (2, 2)
    return settings


def user_of(made: Shop, row: Row) -> str:
    return made.reader().read([message(row)], 10**16, 0).purchases[0].user_id


def totals(made: Shop, users: list[str]) -> dict[str, tuple[int, datetime]]:
    found = vectors(made, users)
    if not found.num_rows:
        return {}
    values = zip(found["total_purchases"].to_pylist(), found["event_timestamp"].to_pylist(), strict=True)
    return dict(zip(found["user_id"].to_pylist(), values, strict=True))


def test_a_materialize_of_older_snapshots_leaves_what_the_stream_has_put_online(tmp_path: Path) -> None:
    made = shop(tmp_path, customers=5)
    settings = streamed_settings(made)
    users = [user_of(made, NEW), user_of(made, KNOWN)]
    before = totals(made, users)
    assert before[users[0]] == (1, NOW)
    fill_online_store(Context(settings, NOW, lambda _: None, clock=lambda: NOW + timedelta(hours=1)))
    after = totals(made, users)
    assert {user: one[0] for user, one in after.items()} == {user: one[0] for user, one in before.items()}
    assert all(one[1] > NOW for one in after.values())


def test_an_erased_customer_leaves_the_state_and_the_store(tmp_path: Path) -> None:
    made = shop(tmp_path, customers=5)
    settings = streamed_settings(made)
    known, other = user_of(made, KNOWN), user_of(made, NEW)
    proof = forget(Context(settings, NOW, lambda _: None), [KNOWN[0]], "asked for it")
    assert proof.remaining == 0
    assert proof.removed["stream"] == 1 + sum(row[0] == KNOWN[0] for row in made.history)
    assert known not in totals(made, [known, other])
    assert other in totals(made, [known, other])  # the others' newer vectors stay
    with streaming(settings) as parts:
        assert work_of(settings, parts, lambda: NOW).apply([message(KNOWN)]).left_out == 1


def test_a_source_that_no_stream_can_have_runs_in_a_profile_that_names_brokers(tmp_path: Path) -> None:
    """A labelled table has no purchases; the profile `production` names brokers for every workspace."""
    table = tmp_path / "table.csv"
    lines = [f"c{n},{n % 50},{n % 2}" for n in range(200)]
    table.write_text("\n".join(["customer,age,churned", *lines]) + "\n")
    source = {"kind": "csv", "uri": str(table), "columns": {"user_id": "customer", "target": "churned"}}
    spec = {"features": [{"name": "age", "dtype": "float64"}], "derived": [], "eligible": None}
    content = {
        "workspace": str(tmp_path / "var"),
        "data": {
            "shape": "labelled",
            "observed_at": "2026-01-01T00:00:00Z",
            "source": source,
            "expectations": [],
        },
        "features": spec,
        "stream": {"brokers": "127.0.0.1:1", "state": f"sqlite:///{tmp_path}/state.db"},
    }
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(content, sort_keys=False))
    flags = ["--config", str(overlay)]
    for command in (["ingest"], ["features", "build"], ["features", "materialize"]):
        assert main([*command, *flags]) == 0, command
    assert main(["forget", "c7", "--reason", "a test", *flags]) == 0
    assert not (tmp_path / "state.db").exists(), "no state is made where none is needed"
