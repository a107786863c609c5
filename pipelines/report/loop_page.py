"""`churn report`: one self-contained page about the whole loop.

It has no script, loads nothing, and its policy (CSP) allows only its own style sheet. Equal facts give equal
bytes: the page has no time of its making.
"""

import base64
import hashlib
import tempfile
from collections.abc import Callable
from importlib.resources import files as resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from core.workspace import write_atomically
from pipelines.context import Stages
from pipelines.report import canaries, checks, customers, decisions, health, lineage, models, timeline
from pipelines.report.facts import Facts, collect

SECTIONS = (
    health.section,
    customers.section,
    timeline.section,
    checks.section,
    decisions.section,
    canaries.section,
    models.section,
    models.newest_training,
    models.gates,
    lineage.section,
)
"""In the order of the page."""


def write_loop_page(
    settings: Stages, out: Path, listed: int, source_ids: bool, announce: Callable[[str], None]
) -> Facts:
    """Write the page to `out`, and return the facts on it. `listed`: how many customers to call.

    With `source_ids` the page names customers as the source does, and only its owner may read it. Raises
    ServingError if there is nothing to report.
    """
    root = settings.files.root
    with tempfile.TemporaryDirectory(prefix=".report-", dir=root if root.is_dir() else None) as scratch:
        facts = collect(settings, Path(scratch), listed, source_ids, announce)
    write_atomically(out, render(facts))
    if source_ids:
        out.chmod(0o600)
    return facts


def render(facts: Facts) -> str:
    """The page as HTML."""
    css = resources("pipelines").joinpath("templates", "loop.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    window = facts.manifest["window"]
    page: str = (
        Environment(
            loader=PackageLoader("pipelines"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        .get_template("loop.html.j2")
        .render(
            css=css,
            policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
            model=facts.model,
            subtitle=f"Model {facts.model}, {facts.manifest['rows']:,} rows of"
            f" {facts.manifest['customers']:,} customers, {window['start'][:10]} to {window['end'][:10]};"
            " the newest record is of"
            f" {health.newest(facts):%Y-%m-%d %H:%M} UTC.",
            sections=[section(facts) for section in SECTIONS],
        )
    )
    return page
