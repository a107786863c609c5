"""The settings of a worker: the serving config's values reach it, and an error names the variable."""

from dataclasses import fields

import pytest

from handlers.bundle import BundleError
from handlers.settings import WorkerSettings, read_settings, variable_of, variables_from
from serving.config import ServingConfig


def test_the_values_of_the_serving_config_reach_the_worker() -> None:
    config = ServingConfig.model_validate(
        {
            "max_instances": 7,
            "store_timeout_ms": 3,
            "prediction_log_kafka": "broker:9092/scores",
            "tracing": {"endpoint": "http://collector:4318", "sample_ratio": 0.5},
        }
    )
    read = read_settings(variables_from(config))
    assert (read.max_instances, read.store_timeout_ms) == (7, 3.0)
    assert (read.otel_endpoint, read.otel_ratio) == ("http://collector:4318", 0.5)
    assert (read.prediction_log_folder, read.prediction_log_kafka) == ("", "broker:9092/scores")


def test_the_defaults_of_both_are_the_same() -> None:
    assert read_settings(variables_from(ServingConfig())) == read_settings({}) == WorkerSettings()


def test_without_a_receiver_in_the_config_that_of_the_environment_stays() -> None:
    assert not {"CHURN_OTEL_ENDPOINT", "CHURN_OTEL_RATIO"} & variables_from(ServingConfig()).keys()


@pytest.mark.parametrize("name", [one.name for one in fields(WorkerSettings) if one.type is not str])
@pytest.mark.parametrize("text", ["", "soon", "nan", "inf"])
def test_an_error_names_the_variable(name: str, text: str) -> None:
    with pytest.raises(BundleError, match=rf"^{variable_of(name)}: expected a number.*, found '{text}'$"):
        read_settings({variable_of(name): text})
