"""Silences the banners, hints and warnings of libraries on the console."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NOISY_LIBRARIES = (
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
    """Only errors of the libraries named in NOISY_LIBRARIES reach the console; then levels are restored."""
    loggers = [logging.getLogger(name) for name in NOISY_LIBRARIES]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # caused by the libraries: torch's pytree deprecation, MLflow's use of SQLAlchemy, Lightning's hints
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
