"""What a rule is shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Literal

from training.gates.sample import Sample


@dataclass(frozen=True)
class Champion:
    """The model that serves now, as far as it could be brought to the test rows."""

    state: Literal["none", "scored", "unusable"]
    version: str = ""
    problem: str = ""
    """Why an existing champion could not be compared with."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a model on trial. What could not be found out is absent or NaN, and in `problems`."""

    program_sha256: str
    rows: int = 0
    """Test rows that the scores are of."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the exported program's scores (training/learn/metrics.py), at the threshold that ships."""
    sample: Sample | None = None
    """The rows themselves, with every rival's scores."""
    expected_baselines: tuple[str, ...] = ()
    """Those that the configuration asks for, whether they were found or not."""
    expected_groups: tuple[str, ...] | None = None
    """Whom the configuration compares; None: nobody looked."""
    champion: Champion | None = None
    """None: nobody looked whether there is one."""
    program_difference: float = nan
    """Largest distance between the exported program's scores and the checkpoint's, over the test rows."""
    packaged_sha256: str = ""
    """Of the program inside the candidate archive."""
    archive: Mapping[str, float] = field(default_factory=dict)
    """`p95_ms` and `p50_ms` of a batch in the handler's scorer, `megabytes` of the .mar: measured, so never
    the same twice."""
    single_feature_auroc: Mapping[str, float] = field(default_factory=dict)
    """AUROC on the test rows of a model that sees one feature only."""
    problems: tuple[str, ...] = ()
