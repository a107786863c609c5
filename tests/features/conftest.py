"""The shipped feature spec and the real log, for the feature tests."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import yaml

from features.spec import FeaturesConfig
from support.feature_records import CONFIG, cdnow

SpecFactory = Callable[..., FeaturesConfig]


@pytest.fixture(scope="session")
def make_spec() -> SpecFactory:
    """The shipped spec, with all customers eligible and the given keys replaced."""

    def make(**changes: Any) -> FeaturesConfig:
        shipped = yaml.safe_load(CONFIG.read_text()) | {"threads": 2, "eligible": None}
        return FeaturesConfig.model_validate(shipped | changes)

    return make


@pytest.fixture(scope="session")
def cdnow_log() -> pd.DataFrame:
    return cdnow()
