"""Silences the banners, hints and warnings of libraries on the console."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

TALKERS = (
    "pytorch_lightning",
    "lightning_fabric",
    "optuna",
    "mlflow",
    "alembic",
    "mlflow.store.db.utils",
    "torch.export",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors of the libraries named in TALKERS reach the console; levels are put back afterwards."""
    loggers = [logging.getLogger(name) for name in TALKERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # theirs, not ours: torch's pytree deprecation, MLflow's use of SQLAlchemy, Lightning's advice
        warnings.filterwarnings(
            "ignore", category=FutureWarning, module=r"(torch|pytorch_lightning|mlflow|optuna)\b"
        )
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings(
            "ignore", category=UserWarning, module=r"(pytorch_lightning|lightning_fabric|mlflow|optuna)\b"
        )
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
