"""The ledger: each decision about a training with its reason, and the grade that it got later."""

from pipelines.report.blocks import Block, Cell, Section, Table, Text, Tone, words
from pipelines.report.facts import Facts

TONES: dict[str, Tone] = {"yes": "good", "no": "", "vetoed": "bad"}


def section(facts: Facts) -> Section:
    if not facts.decisions:
        return Section(
            "decisions", "Decisions to train", [Text("The governor has not decided yet: churn retrain.")]
        )
    grades, runs = facts.grades or {}, {run.decision: run for run in facts.runs}
    rows = []
    for entry in reversed(facts.decisions):
        decision, grade, run = entry.decision, grades.get(entry.number), runs.get(entry.number)
        graded = Cell("not yet", "soft")
        if grade is not None:
            tone: Tone = "good" if grade.grade == "right" else "bad"
            graded = Cell(f"{grade.grade}: {grade.reason}", tone)
        rows.append(
            [
                Cell(str(entry.number)),
                Cell(f"{entry.at:%Y-%m-%d %H:%M}"),
                Cell(decision.action.value, TONES.get(decision.action.value, "")),
                Cell("–" if decision.trigger is None else words(decision.trigger.value)),
                Cell("–" if decision.obstacle is None else words(decision.obstacle.value)),
                Cell(decision.reason),
                Cell("–" if run is None else words(run.outcome.value)),
                graded,
                Cell(entry.evidence_sha256[:12]),
            ]
        )
    columns = ("#", "when (UTC)", "train", "trigger", "obstacle", "reason", "run", "grade", "evidence")
    right = sum(grade.grade == "right" for grade in grades.values())
    blocks: list[Block] = [Table("Ledger, the newest first", columns, rows)]
    if grades:
        blocks.insert(0, Text(f"{right} of {len(grades)} graded decisions were right."))
    return Section("decisions", "Decisions to train", blocks)
