"""`python -m training fit|validate|test|predict`: the fit of `churn train` by Lightning's CLI.

    python -m training fit --config configs/training.yaml
    python -m training fit --config configs/training.yaml --epochs 6 --model.dropout 0.2 --print_config
    python -m training fit --ckpt_path var/fit/last.ckpt                  # resume after a kill
    python -m training fit --trainer.devices 2 --trainer.strategy ddp
    python -m training test                                               # var/fit/best.ckpt on the test rows
    python -m training fit --config examples/telco.yaml --set training.epochs=6    # as with `churn train`

`--profile`, `--set` and an overlay with the keys of stages after `--config` work as in `churn`
(training/cli/overlay.py). The keys of `configs/training.yaml` are flags of this command, so `churn` and this
command can read the same file; the keys of `configs/model.yaml` are flags below `--model`. Rows, features and
split come from the workspace that `churn` filled, through the same functions (`prepare`, `assemble`).
`--rows all` gives the weights of `churn train` if no study has been run. The best parameters of a study are
not read here: after `churn tune`, give them (var/tuned.json) as flags.

One command fits all of `model.seeds` in one module (training/learn/module.py gives the reason), so the
checkpoint holds the complete model that would be served. `--model.seeds [0]` fits a single member.
`--seed_everything` is another name for `--seed`.

`validate`, `test` and `predict` take model, features, split and threshold from the checkpoint. Flags for
these have no effect there.
"""

import json
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import set_parsing_settings
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from rich.console import Console
from rich.markup import escape

from core.errors import ChurnError, ConfigError
from core.workspace import Workspace, write_atomically
from training.cli.arguments import FROM_CONFIG, HELP, TRAINER_DEFAULTS, add_run_options, add_settings
from training.cli.inputs import fit_settings, read_rows, shape_of
from training.cli.messages import one_line
from training.cli.overlay import as_flags
from training.learn.checkpoint import Contract
from training.learn.datamodule import ChurnData
from training.learn.encoded import tensors
from training.learn.fit import assemble
from training.learn.module import TRAIN_LOSS, VALIDATION_LOSS, ChurnModule
from training.learn.resolved import ResolvedSettings
from training.learn.trainer import ProgressCallback, prepared, trainer_settings
from training.quiet import quiet
from training.train import KEYS, prepare

console = Console(stderr=True, highlight=False)


class TrainingCLI(LightningCLI):
    """Lightning's command line over the configs of this project; `main` turns errors into one line."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(
            args=list(arguments),
            trainer_defaults=TRAINER_DEFAULTS,
            save_config_callback=SaveConfigCallback,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={name: {"exit_on_error": False, "description": HELP} for name in self.subcommands()}
            | {"exit_on_error": False, "prog": "python -m training"},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed_everything", type=int | None, help="another name for --seed")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})
        add_settings(parser)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_run_options(parser)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: checkpoints hold their settings below `churn` (training/learn/checkpoint.py)."""

    def _set_seed(self) -> None:
        """Does nothing: the global random state is not used (training/learn/trainer.py: `prepared`)."""

    def instantiate_classes(self) -> None:
        given = self.config[self.subcommand]
        self.files = Workspace(Path(given["workspace"]).absolute())
        self.folder = Path(given["trainer"]["default_root_dir"] or self.files.root / "fit")
        if self.subcommand == "fit":
            self._assemble(given)
        else:
            self._load(given)
        self.config_init = self.parser.instantiate_classes(self.config)
        self.trainer = self._trainer()

    def _assemble(self, given: Any) -> None:
        settings = fit_settings(given.as_dict(), self.files)
        rows, split = prepare(read_rows(self.files), settings)
        inner = given["rows"] == "inner"
        train = rows.iloc[split.inner_train if inner else split.train]
        with prepared(settings.training):
            task = assemble(train, rows.iloc[split.inner_validation] if inner else None, settings)
        self.model, self.datamodule, self.training = task.module, task.data, task.settings.training

    def _load(self, given: Any) -> None:
        path = Path(given["ckpt_path"] or self.folder / "best.ckpt")
        self.model = ChurnModule.load_from_checkpoint(path)
        contract: Contract = self.model.contract
        self.training = contract.training
        settings = ResolvedSettings(shape_of(self.files), contract.spec, contract.model, contract.training)
        rows, split = prepare(read_rows(self.files), settings)
        chosen = split.inner_validation if self.subcommand == "validate" else split.test
        self.judged = rows.iloc[chosen]
        judged = tensors(self.judged, contract.inputs, contract.program.preprocessing)
        self.datamodule = ChurnData(None, judged, judged=judged)

    def _trainer(self) -> pl.Trainer:
        """The trainer: flags, defaults of this project for flags not given, and the callbacks that apply."""
        flags = dict(self._get(self.config_init, "trainer"))
        ours = trainer_settings(self.training)
        flags |= {key: ours[key] for key in FROM_CONFIG if flags[key] is None}
        flags["default_root_dir"] = str(self.folder)
        if flags["accelerator"] == "auto" and torch.backends.mps.is_available():
            flags["accelerator"] = "cpu"  # Apple's devices lack float64, which scores and sums need
        stopping, checkpoint = (self._get(self.config_init, key) for key in ("early_stopping", "checkpoint"))
        self.checkpoint: ModelCheckpoint = checkpoint
        checkpoint.dirpath = checkpoint.dirpath or str(self.folder)
        callbacks: list[pl.Callback] = [checkpoint]
        if self._get(self.config, "rows") == "inner":
            callbacks.append(stopping)
        elif checkpoint.monitor == VALIDATION_LOSS:
            checkpoint.monitor = None  # there is no validation loss, so the newest checkpoint is saved
        if flags["enable_progress_bar"] is not False and console.is_terminal:
            callbacks.append(RichProgressBar(refresh_rate=20, console_kwargs={"stderr": True}))
        else:
            flags["enable_progress_bar"] = False
            callbacks.append(ProgressCallback(console.print))
        return self._instantiate_trainer(flags, callbacks if self.subcommand == "fit" else callbacks[2:])

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand != "fit":
            arguments["ckpt_path"] = None  # the module was loaded from it already
        if subcommand == "predict":
            arguments["return_predictions"] = False
        return arguments

    def _run_subcommand(self, subcommand: str) -> None:
        with prepared(self.training):
            super()._run_subcommand(subcommand)

    def after_fit(self) -> None:
        self._write_metrics("fit", (TRAIN_LOSS, VALIDATION_LOSS))
        if self.trainer.is_global_zero:
            console.print(f"Checkpoint: {self.checkpoint.best_model_path}")

    def after_validate(self) -> None:
        self._write_metrics("validate", (VALIDATION_LOSS,))

    def after_test(self) -> None:
        self._write_metrics("test", tuple(self.trainer.callback_metrics))
        self._write_scores("test_scores.parquet", [*KEYS, "churned"])

    def after_predict(self) -> None:
        self._write_scores("predictions.parquet", list(KEYS))

    def _write_metrics(self, command: str, names: Sequence[str]) -> None:
        """Writes the metrics `names` to `<command>.json`."""
        found = {name: float(self.trainer.callback_metrics[name]) for name in names
                 if name in self.trainer.callback_metrics}  # fmt: skip
        if self.trainer.is_global_zero:
            write_atomically(self.folder / f"{command}.json", json.dumps(found, indent=1))

    def _write_scores(self, name: str, columns: list[str]) -> None:
        if self.trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            scored = self.judged[columns].assign(score=self.model.scores).reset_index(drop=True)
            scored.to_parquet(self.folder / name, index=False)
            console.print(f"Scores: {self.folder / name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed, 2 refused input."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    try:
        with quiet():
            TrainingCLI(as_flags(sys.argv[1:] if arguments is None else arguments))
    except ChurnError as error:
        console.print(f"[bold red]training:[/] {escape(str(error))}", soft_wrap=True)
        return error.exit_code
    except (ArgumentError, MisconfigurationException) as error:
        console.print(f"[bold red]training:[/] {escape(one_line(str(error)))}", soft_wrap=True)
        return ConfigError.exit_code
    return 0
