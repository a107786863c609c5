"""The steps of a run: those of the loop, in the run's own workspace.

Records, features and online store are those of the main workspace, and are brought up to date there. Then the
run links to this version of the data, and everything after that depends on files of the run only. So a run
that continues after a crash trains on the same rows, and it replaces no file that a server or monitor reads.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from core.workspace import RunWorkspace, Workspace, link_version, write_atomically
from pipelines.context import Context
from pipelines.engine import Step, run_steps
from pipelines.retraining.competition import choose_window
from pipelines.steps import STEPS, depends
from pipelines.steps.table import LEARNING

BY_NAME = {step.name: step for step in STEPS}
SHARED = tuple(BY_NAME[name] for name in ("ingest", "features", "online store"))
"""Steps in the main workspace."""


def pin_data(context: Context) -> None:
    """Links the current records and features into the run's workspace; no byte is copied."""
    files, main = context.files, Workspace(context.files.root)
    for current, place in ((main.data, files.data), (main.features, files.features)):
        place.parent.mkdir(parents=True, exist_ok=True)
        link_version(current, place)
    write_atomically(_erasures(files), json.dumps(erased(main)))


def erased(files: Workspace) -> str:
    """Digest of the list of customers who were erased."""
    return hashlib.sha256(files.erased.read_bytes()).hexdigest() if files.erased.is_file() else ""


def erased_since(files: RunWorkspace) -> bool:
    """Whether a customer was erased after the data were linked."""
    return bool(json.loads(_erasures(files).read_text()) != erased(Workspace(files.root)))


def _erasures(files: Workspace) -> Path:
    return files.steps.with_name("erased-before.json")


def _ingest(context: Context) -> None:
    """Each of the shared steps, where its inputs have changed; then the link."""
    shared = replace(context, place=None)
    run_steps(SHARED, shared)
    pin_data(context)


DATA = Step(
    name="data",
    title="Ingest, build features, and link this version of them",
    act=_ingest,
    depends=lambda context: None,  # once linked, a run uses these data to its end
    rooms=(),
    reads=lambda c: [],
    writes=lambda c: [c.files.manifest, c.files.feature_manifest, _erasures(c.files)],
)
WINDOW = Step(
    name="window",
    title="Choose the window of history",
    act=choose_window,
    depends=lambda context: [
        depends.tuned(context),
        context.settings.retrain.windows.model_dump(mode="json"),
    ],
    rooms=("model", "training", "retraining"),
    reads=lambda c: [c.files.training_set, c.files.tuned],
    writes=lambda c: [c.files.training_window],
    libraries=LEARNING,
)


def _after_window(step: Step) -> Step:
    return replace(step, reads=lambda c: [*step.reads(c), c.files.training_window])


RUN_STEPS = (
    DATA,
    BY_NAME["training set"],
    BY_NAME["tune"],
    WINDOW,
    _after_window(BY_NAME["train"]),
    _after_window(BY_NAME["gates"]),
    BY_NAME["package"],
)
"""The rollout follows them (pipelines/retraining/runner.py)."""
