"""Writes the proposal as commented YAML for `churn run --config`."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from churn.init.proposal import Proposal

WIDTH = 110
SETTING_OF = {
    "timezone": "timezone",
    "dates": "dates",
    "duplicates": "duplicates",
    "observed_at": "observed_at",
    "positive": "positive",
    "decimal": "options",
    "encoding": "options",
}
"""Doubt -> the setting whose comment points to it."""


def render(proposal: Proposal) -> str:
    """The text of the file. Each doubt is a comment at its beginning, to which its setting points."""
    doubtful = {SETTING_OF.get(doubt.key, doubt.key) for doubt in proposal.notes.doubts}
    lines = [
        *_head(proposal),
        f"workspace: {_flow('var/' + proposal.name)}",
        "data:",
        f"  shape: {proposal.shape}",
    ]
    lines += _pairs(proposal.data, 2, proposal.remarks, doubtful)
    lines += ["  source:", *_pairs(proposal.source, 4, proposal.remarks, doubtful)]
    lines += ["  expectations:", *[f"    - {_flow(one)}" for one in proposal.expectations]]
    lines += ["features:", f"  service: {proposal.name}_v1"]
    lines += _pairs(proposal.features_settings, 2, proposal.remarks, doubtful)
    if proposal.features is not None:
        lines += ["  features:"]
        for feature in proposal.features:
            remark = proposal.remarks.get(str(feature["name"]))
            lines += [f"    - {_flow(feature)}" + (f"   # {remark}" if remark else "")]
    lines += [
        f"    # left out: {_flow(column)}: {_plain(why)}" for column, why in proposal.notes.left_out.items()
    ]
    if proposal.derived is not None:
        lines += ["  derived: []"] if not proposal.derived else ["  derived:"]
        lines += [f"    - {_flow(ratio)}" for ratio in proposal.derived]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(proposal: Proposal) -> list[str]:
    lines = [f"# Written by churn init from {_plain(proposal.looked_at)}."]
    lines += ["# Findings, with their evidence:"]
    for finding in proposal.notes.findings:
        lines += _comment(f"{finding.what}: {finding.value} ({finding.why})")
    if proposal.notes.doubts:
        lines += ["# Not certain; correct the setting if the guess is wrong:"]
    for doubt in proposal.notes.doubts:
        others = [option for option in doubt.options if option != doubt.value]
        rest = f"; or {', '.join(others)}" if others else ""
        lines += _comment(f"DOUBT {doubt.key}: {doubt.value} ({doubt.why}){rest}")
    return lines


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        _plain(text), WIDTH, initial_indent="#   ", subsequent_indent="#     ", break_long_words=False
    )


def _pairs(tree: Mapping[str, Any], indent: int, remarks: Mapping[str, str], doubtful: set[str]) -> list[str]:
    lines = []
    for key, value in tree.items():
        remark = remarks.get(key) or ("a guess: see DOUBT above" if key in doubtful else "")
        nested = isinstance(value, Mapping) and key in ("columns", "computed", "types", "options")
        beside = f"   # {_plain(remark)}" if remark else ""
        if nested and isinstance(value, Mapping):
            lines.append(f"{' ' * indent}{key}:{beside}")
            for name, one in value.items():
                note = "   # a guess: see DOUBT above" if name in doubtful else ""
                lines.append(f"{' ' * (indent + 2)}{_flow(name)}: {_flow(one)}{note}")
        else:
            lines.append(f"{' ' * indent}{key}: {_flow(value)}{beside}")
    return lines


def _flow(value: Any) -> str:
    """The value as YAML on one line, in quotes if YAML would misread it."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _plain(text: str) -> str:
    """The text without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shown_doubts(proposal: Proposal) -> Sequence[tuple[str, str, str, str]]:
    """Rows of a table: key, guess, why, other answers."""
    return [
        (doubt.key, doubt.value, doubt.why, ", ".join(o for o in doubt.options if o != doubt.value))
        for doubt in proposal.notes.doubts
    ]
