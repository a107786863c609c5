"""The base of every configuration."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of all configs: immutable; an unknown key is an error that names the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")
