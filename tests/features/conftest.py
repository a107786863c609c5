"""The shipped feature spec and the real log, for the feature tests."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import yaml
from support.feature_records import CONFIG, cdnow

from features.spec import FeaturesConfig

SpecFactory = Callable[..., FeaturesConfig]


@pytest.fixture(scope="session")
def make_spec() -> SpecFactory:
    """The shipped spec with everybody eligible, with keys replaced."""

    def make(**changes: Any) -> FeaturesConfig:
        everybody = yaml.safe_load(CONFIG.read_text()) | {"threads": 2, "eligible": None}
        return FeaturesConfig.model_validate(everybody | changes)

    return make


@pytest.fixture(scope="session")
def cdnow_log() -> pd.DataFrame:
    return cdnow()
