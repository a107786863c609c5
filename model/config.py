"""The schema of `configs/model.yaml`. `training/learn/recipe.py` sets what is left out or null."""

from typing import Literal

from pydantic import Field

from core.config import Config


class PurchaseColumns(Config):
    """The features of configs/features.yaml that the purchase process reads."""

    purchase_days: str = "active_days"
    """Days with a purchase, including the first one."""
    age: str = "tenure_months"
    """Time since the first purchase."""
    days_of_age: float = Field(30.4375, gt=0)
    """Days in one unit of `age`."""
    recency: str = "recency_days"
    """Days since the last purchase."""


class ModelConfig(Config):
    architecture: Literal["mlp", "tabm"] | None = None
    """`mlp`: a multilayer perceptron. `tabm`: networks that share most weights (Gorishniy et al., 2025)."""
    hidden: tuple[int, ...] | None = Field(None, min_length=1)
    """Widths of the layers. All layers of `tabm` have the same width."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of activations that are set to zero in training."""
    submodels: int | None = Field(None, gt=0)
    """Number of networks in one `tabm`."""
    log1p: bool = True
    """sign(x) * log(1 + |x|) on numeric inputs before they are scaled."""
    scaling: Literal["standard", "quantile"] = "standard"
    """`standard`: mean 0 and standard deviation 1. `quantile`: to a normal distribution, by the training
    rows' quantiles."""
    numeric_embedding: Literal["none", "piecewise_linear", "periodic"] | None = None
    """The embedding of numbers in the deep path (Gorishniy et al., 2022)."""
    numeric_embedding_size: int = Field(8, gt=0)
    """Size of the embedding of a number."""
    bins: int = Field(12, gt=1)
    """Number of bins of the piecewise-linear embedding, between quantiles of the training rows."""
    embedding_size: int = Field(8, gt=0)
    """Size of the embedding of a category."""
    wide: bool | None = None
    """Whether a logistic regression is added to the deep path. Out-of-fold scores determine both weights."""
    trees: bool | None = None
    """Whether the wide path has boosted trees, exported with the network. Default: for labelled tables."""
    purchase_process: bool | None = None
    """Whether BG/NBD features are added. Default: for a transaction log whose spec has the columns."""
    purchase_columns: PurchaseColumns = PurchaseColumns()
    seeds: tuple[int, ...] | None = Field(None, min_length=1)
    """One member of the ensemble per seed. The program averages their logits."""
