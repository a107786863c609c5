"""What `configs/model.yaml` may say. What is left out, or null, follows `training/learn/recipe.py`."""

from typing import Literal

from pydantic import Field

from data.config import Config


class PurchaseColumns(Config):
    """The features of configs/features.yaml that the purchase process reads."""

    purchase_days: str = "active_days"
    """Days with a purchase, the first included."""
    age: str = "tenure_months"
    """Time since the first purchase."""
    days_of_age: float = Field(30.4375, gt=0)
    """Days in one unit of `age`."""
    recency: str = "recency_days"
    """Days since the last purchase."""


class ModelConfig(Config):
    architecture: Literal["mlp", "tabm"] | None = None
    """`tabm`: many networks that share most of their weights (Gorishniy and others, 2025)."""
    hidden: tuple[int, ...] | None = Field(None, min_length=1)
    """Widths of the layers; those of `tabm` are all the same."""
    dropout: float | None = Field(None, ge=0, lt=1)
    submodels: int | None = Field(None, gt=0)
    """How many networks one `tabm` holds."""
    log1p: bool = True
    """sign(x) * log(1 + |x|) on numeric inputs before they are scaled."""
    scaling: Literal["standard", "quantile"] = "standard"
    """`quantile`: to the normal distribution by the training rows' quantiles."""
    numeric_embedding: Literal["none", "piecewise_linear", "periodic"] | None = None
    """How the deep path reads a number (Gorishniy and others, 2022)."""
    numeric_embedding_size: int = Field(8, gt=0)
    bins: int = Field(12, gt=1)
    """Of the piecewise-linear embedding, between quantiles of the training rows."""
    embedding_size: int = Field(8, gt=0)
    """Of a category, at most."""
    wide: bool | None = None
    """A logistic regression beside the deep path; out-of-fold scores say how much of each is heard."""
    trees: bool | None = None
    """Boosted trees in the wide path, exported with the network. Left out: for labelled tables."""
    purchase_process: bool | None = None
    """BG/NBD features beside the others. Left out: for a transaction log whose spec has the columns."""
    purchase_columns: PurchaseColumns = PurchaseColumns()
    seeds: tuple[int, ...] | None = Field(None, min_length=1)
    """One member a seed; the program averages their logits."""
