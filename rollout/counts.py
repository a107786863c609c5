"""Evidence as numbers by name, in the form in which the database stores the counts of each look, and back.

`<variant>.<count>` for each of rollout/evidence.py, COUNTS. Also of the proxy: `.failing`, `.le.<edge in ms>`
(requests of that bucket alone). Also of the prediction log: `.score.<score>`,
`.segment.<column=value>.<score>`, `.label.<score>.<0 or 1>`, and `pair.<difference>` of the window. Values
are counts. Scores are rounded to ten-thousandths, a five-hundredth of the tolerance of rules. There are no
identifiers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rollout.evidence import COUNTS, PROXY_COUNTS, Arm, Blocks, Floats, Labelled, Window

Counted = dict[str, float]
VARIANTS = ("stable", "canary")
PROXY = (*PROXY_COUNTS, "failing", "le")
"""The first word after the variant in names of the proxy's counts. They only grow, and restart with the
proxy."""
SCALE = 10_000


def counted(window: Window) -> Counted:
    """The counts of a window."""
    found = _numbers("pair", window.pairs)
    for variant in VARIANTS:
        arm: Arm = getattr(window, variant)
        found |= {f"{variant}.{name}": float(getattr(arm, name)) for name in COUNTS if getattr(arm, name)}
        if arm.failing is not None:
            found[f"{variant}.failing"] = float(arm.failing)
        below = 0
        for edge, count in sorted(arm.latency_ms.items()):
            found[f"{variant}.le.{edge:g}"], below = float(count - below), count
        found |= _numbers(f"{variant}.score", arm.scores)
        for segment, scores in arm.segments.items():
            found |= _numbers(f"{variant}.segment.{segment}", scores)
        for outcome in (0, 1):
            scores = arm.labelled.scores[arm.labelled.churned == outcome]
            found |= {f"{name}.{outcome}": n for name, n in _numbers(f"{variant}.label", scores).items()}
    return found


def _numbers(name: str, data: Floats) -> Counted:
    values, counts = np.unique(np.round(data * SCALE), return_counts=True)
    return {f"{name}.{value:.0f}": float(n) for value, n in zip(values, counts, strict=True)}


def grown(before: Mapping[str, float], now: Mapping[str, float]) -> Counted:
    """The change between two looks at one window; after a restart of the proxy, all that it counts now.

    Counts of a proxy do not fall: one that is a little lower was read late, and adds nothing. Counts of
    customers may fall: a record that arrives late may be a customer's first one, in an earlier window.
    """
    anew = any(now.get(name, 0.0) < count / 2 for name, count in before.items() if name.endswith(".requests"))
    changes: Counted = {}
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name, 0.0), now.get(name, 0.0)
        if _of_proxy(name) and not name.endswith(".failing"):
            changes[name] = new if anew else max(0.0, new - old)
        else:
            changes[name] = new - old
    # also zeros of the first look, which show that customers are counted, and by which edges
    first = {name for name in now if name not in before and name.split(".")[1] in ("failing", "le")}
    return {name: change for name, change in changes.items() if change or name in first}


def _of_proxy(name: str) -> bool:
    return name.partition(".")[2].partition(".")[0] in PROXY


@dataclass
class Tally:
    """The sum of the counts of one window; `blocks`: the proxy's counts of each block of time."""

    block_s: float
    total: Counted = field(default_factory=dict)
    blocks: dict[int, Counted] = field(default_factory=dict)

    def add(self, change: Mapping[str, float], seconds: float) -> None:
        """`seconds`: since the window's begin."""
        block = self.blocks.setdefault(max(0, math.ceil(seconds / self.block_s) - 1), {})
        for name, value in change.items():
            self.total[name] = self.total.get(name, 0.0) + value
            if _of_proxy(name):
                block[name] = block.get(name, 0.0) + value

    def window(self, weight: int, mirror: bool, seconds: float, over: bool, objective_ms: float) -> Window:
        """`over`: whether the window has ended, which makes its last block complete."""
        size = max(self.blocks, default=-1) + 1 if over else int(seconds / self.block_s)
        parts: dict[str, dict[str, float]] = {name: {} for name in (*VARIANTS, "pair")}
        for name, value in self.total.items():
            first, _, rest = name.partition(".")
            parts[first][rest] = value
        return Window(
            weight,
            mirror,
            seconds,
            stable=self._arm("stable", parts["stable"], size, objective_ms),
            canary=self._arm("canary", parts["canary"], size, objective_ms),
            pairs=_repeated(parts["pair"]),
        )

    def _arm(self, variant: str, found: Mapping[str, float], size: int, objective_ms: float) -> Arm:
        plain = {name: max(0, round(found.get(name, 0))) for name in COUNTS}
        inside = {float(name[3:]): value for name, value in found.items() if name.startswith("le.")}
        latency: dict[float, int] = {}
        for edge in sorted(inside):
            latency[edge] = round(inside[edge]) + next(reversed(latency.values()), 0)
        if latency:
            timed = latency[max(latency)]
            fast = next((n for edge, n in latency.items() if edge >= objective_ms), timed)
            plain["slow"] = min(plain["requests"], timed - fast)
        failing = max(0, round(found["failing"])) if "failing" in found else None
        return Arm(
            **plain,
            failing=None if failing is None else min(failing, plain["errors"]),
            p99_ms=quantile(latency, 0.99),
            latency_ms=latency,
            blocks=self._blocks(variant, tuple(latency), size, failing is not None),
            scores=_repeated(_under(found, "score.")),
            segments=_segments(found),
            labelled=_labelled(found),
        )

    def _blocks(self, variant: str, edges: tuple[float, ...], size: int, by_customer: bool) -> Blocks:
        requests, errors = np.zeros((2, size))
        inside = np.zeros((size, len(edges)))
        failures = f"{variant}.failing" if by_customer else f"{variant}.errors"
        names = [f"{variant}.le.{edge:g}" for edge in edges]
        for number, block in self.blocks.items():
            if number < size:
                requests[number] = block.get(f"{variant}.requests", 0)
                errors[number] = block.get(failures, 0)
                inside[number] = [block.get(name, 0) for name in names]
        return Blocks(requests, np.maximum(errors, 0), edges, inside.cumsum(axis=1))


def quantile(latency: Mapping[float, int], share: float) -> float | None:
    """The quantile of a cumulative histogram in ms, by linear interpolation in its bucket; the last finite
    edge where it is beyond that; None without requests."""
    measured = max(latency.values(), default=0)
    if not measured:
        return None
    wanted, lower, below = share * measured, 0.0, 0
    for edge, count in sorted(latency.items()):
        if math.isinf(edge):
            break
        if count >= wanted:
            return lower + (edge - lower) * (wanted - below) / (count - below)
        lower, below = edge, count
    return lower


def _under(found: Mapping[str, float], start: str) -> Counted:
    return {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}


def _repeated(counts: Mapping[str, float]) -> Floats:
    values = np.array([float(value) for value in counts]) / SCALE
    return np.repeat(values, np.maximum(np.round(list(counts.values())), 0).astype(int))


def _segments(found: Mapping[str, float]) -> dict[str, Floats]:
    segments: dict[str, Counted] = {}
    for name, value in _under(found, "segment.").items():
        segment, _, score = name.rpartition(".")
        segments.setdefault(segment, {})[score] = value
    return {segment: _repeated(counts) for segment, counts in segments.items()}


def _labelled(found: Mapping[str, float]) -> Labelled:
    known = [(_under(found, "label."), outcome) for outcome in (0, 1)]
    scores = [
        _repeated({name[:-2]: n for name, n in labels.items() if name.endswith(f".{outcome}")})
        for labels, outcome in known
    ]
    churned = [np.full(len(one), float(outcome)) for one, outcome in zip(scores, (0, 1), strict=True)]
    return Labelled(np.concatenate(scores), np.concatenate(churned))
