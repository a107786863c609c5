"""Current health: what serves, how old the data are, and what needs a person."""

from datetime import datetime

from monitoring.findings import Severity
from pipelines.report.blocks import Block, Section, Text, Tile, Tiles, Tone
from pipelines.report.facts import Facts


def section(facts: Facts) -> Section:
    blocks: list[Block] = [Tiles(_tiles(facts))]
    blocks += [Text(f"Could not be read: {line}", "bad") for line in facts.unread]
    blocks += [Text(line, "bad") for line in _alarms(facts)]
    if len(blocks) == 1:
        blocks.append(Text("Nothing needs a person." if facts.monitored else "No check has been made yet."))
    return Section("health", "Health", blocks)


def newest(facts: Facts) -> datetime:
    """The newest moment that is recorded anywhere; the page says so instead of the time of its making."""
    times = [datetime.fromisoformat(facts.manifest["window"]["end"])]
    times += [datetime.fromisoformat(made.when) for made in facts.registry]
    times += [event.at for _, events in facts.rollouts for event in events]
    times += [run.at for run in facts.monitored] + [entry.at for entry in facts.decisions]
    return max(times)


def _tiles(facts: Facts) -> list[Tile]:
    data_end = f"{datetime.fromisoformat(facts.manifest['newest']):%Y-%m-%d}"
    champion = (facts.aliases or {}).get("champion")
    number = next((v.tags.get("model_version", "") for v in facts.versions if v.number == champion), "")
    serves = facts.stable or number
    tiles = [
        Tile(serves or "none", "model in service", "" if serves else "warn"),
        Tile(data_end, f"newest of {facts.manifest['rows']:,} rows of data"),
    ]
    if facts.gates is not None:
        passed = facts.gates["passed"]
        tiles.append(
            Tile("passed" if passed else "refused", "gates, newest model", "good" if passed else "bad")
        )
    if facts.monitored:
        last = facts.monitored[-1]
        open_ = [one for one in last.checked.findings if not one.explained_by]
        pages = sum(one.severity is Severity.PAGE for one in open_)
        tickets = sum(one.severity is Severity.TICKET for one in open_)
        tone: Tone = "bad" if pages else "warn" if tickets else "good"
        tiles.append(Tile(f"{pages} pages, {tickets} tickets", f"last check, {last.at:%Y-%m-%d}", tone))
    running = next((one for one, _ in facts.rollouts if not one.over), None)
    tiles.append(Tile("running" if running else "none", "canary now", "warn" if running else ""))
    if facts.decisions:
        last_decision = facts.decisions[-1]
        tiles.append(
            Tile(last_decision.decision.action.value, f"last decision to train, {last_decision.at:%Y-%m-%d}")
        )
    return tiles


def _alarms(facts: Facts) -> list[str]:
    last = facts.monitored[-1].checked.findings if facts.monitored else ()
    found = [
        f"{one.cause.value.capitalize()} of {one.subject}: {one.message}"
        for one in last
        if one.severity is Severity.PAGE and not one.explained_by
    ]
    found += [f"{one.name}: {one.detail}" for one in facts.projections if not one.agrees]
    found += [f"Canary {one.id} is stuck: {one.trouble}" for one, _ in facts.rollouts if one.stuck]
    return found
