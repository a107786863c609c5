"""The steps of the loop: what each does, and what its result depends on."""

from pipelines.steps.table import STEPS

__all__ = ["STEPS"]
