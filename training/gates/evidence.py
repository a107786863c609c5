"""The input of a rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Literal

from training.gates.sample import Sample


@dataclass(frozen=True)
class Champion:
    """The champion, and whether it could be scored on the test rows."""

    state: Literal["none", "scored", "unusable"]
    version: str = ""
    problem: str = ""
    """Why an existing champion could not be scored."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of a model. Missing values are absent or NaN, with the reason in `problems`."""

    program_sha256: str
    rows: int = 0
    """Number of test rows."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the exported program's scores (training/learn/metrics.py), at the packaged threshold."""
    sample: Sample | None = None
    """The test rows with the scores of model, baselines and champion."""
    expected_baselines: tuple[str, ...] = ()
    """The configured baselines, with or without scores."""
    expected_groups: tuple[str, ...] | None = None
    """The columns of `gates.groups`; None: not checked."""
    champion: Champion | None = None
    """None: it was not checked whether there is one."""
    program_difference: float = nan
    """Largest absolute difference of the exported program's scores and the checkpoint's on the test rows."""
    packaged_sha256: str = ""
    """sha256 of the program inside the candidate archive."""
    archive: Mapping[str, float] = field(default_factory=dict)
    """`p95_ms` and `p50_ms` of a batch in the handler's scorer, `megabytes` of the .mar; these vary between
    runs."""
    single_feature_auroc: Mapping[str, float] = field(default_factory=dict)
    """Feature -> AUROC on the test rows of a model of this feature alone."""
    problems: tuple[str, ...] = ()
