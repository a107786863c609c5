"""What `configs/model.yaml` may say."""

from pydantic import Field

from data.config import Config


class ModelConfig(Config):
    hidden: tuple[int, ...] = (128, 128)
    dropout: float = Field(0.3, ge=0, lt=1)
    log1p: bool = True
    """sign(x) * log(1 + |x|) on numeric inputs before they are standardised."""
    embedding_size: int = Field(8, gt=0)
    wide: bool = False
    """A linear path from the inputs to the logit beside the network."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One member a seed; the program averages their logits."""
