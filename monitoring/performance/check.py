"""The performance of the model in production: measurements, and findings of harm."""

from monitoring.config import MonitoringConfig
from monitoring.findings import Checked
from monitoring.performance.inputs import PerformanceInputs
from monitoring.performance.late import late
from monitoring.performance.scored import opened


def performance(inputs: PerformanceInputs, config: MonitoringConfig) -> Checked:
    """All that is known of the performance at `inputs.at`.

    Raises MonitoringError where the prediction log or the activity lacks a column.
    """
    with opened(inputs) as connection:
        return Checked(late(connection, inputs, config))
