"""The flags of `python -m training`: names, types and defaults."""

from typing import Any, Literal

from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser

from core.layers import CONFIGS, read_layer
from model.config import ModelConfig
from training.config import TrainingConfig
from training.learn.module import VALIDATION_LOSS

FROM_CONFIG = ("max_epochs", "gradient_clip_val")
"""Trainer flags whose default is `--epochs` and `--gradient_clip`."""
TRAINER_DEFAULTS = {
    "deterministic": True,
    "logger": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "accelerator": "auto",
}
HELP = (
    "As with `churn`: --set KEY=VALUE (for example training.epochs=6), --profile NAME, and --config FILE "
    "with an overlay such as examples/telco.yaml; --config takes a file of the flags below too."
)


def add_settings(parser: LightningArgumentParser) -> None:
    """The keys of configs/training.yaml as flags, and those of configs/model.yaml below `--model`."""
    parser.set_defaults({f"trainer.{key}": None for key in FROM_CONFIG})
    parser.add_class_arguments(TrainingConfig, None)
    parser.add_class_arguments(ModelConfig, "model")
    parser.set_defaults(read_layer(CONFIGS / "training.yaml"))
    parser.set_defaults({f"model.{k}": v for k, v in read_layer(CONFIGS / "model.yaml").items()})


def add_run_options(parser: LightningArgumentParser) -> None:
    """Flags of this command only: workspace, features, rows, and the callbacks of the trainer."""
    parser.add_argument("--workspace", type=str, default="var", help="the folder that `churn` works in")
    parser.add_argument(
        "--features",
        type=str | dict[str, Any] | None,
        help="the feature contract: a file (default: configs/features.yaml), or keys laid over that one",
    )
    parser.add_argument(
        "--rows",
        type=Literal["inner", "all"],
        default="inner",
        help="inner: learn from the older training rows and validate on the newest; all: learn from every"
        " training row, as `churn train` does, without validation",
    )
    parser.add_lightning_class_args(EarlyStopping, "early_stopping")
    parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
    parser.set_defaults(
        {
            "early_stopping.monitor": VALIDATION_LOSS,
            "early_stopping.check_on_train_epoch_end": True,
            "checkpoint.monitor": VALIDATION_LOSS,
            "checkpoint.filename": "best",
            "checkpoint.save_last": True,
            "checkpoint.save_on_train_epoch_end": True,
            "checkpoint.enable_version_counter": False,
        }
    )
