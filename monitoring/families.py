"""Families of metrics from plain mappings: the values of the labels -> the value."""

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Values = Mapping[Any, float]
"""Keys are tuples of texts."""


def gauge(name: str, text: str, values: Values, labels: Sequence[str] = ()) -> GaugeMetricFamily:
    """A number that can fall."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def counter(name: str, text: str, values: Values, labels: Sequence[str] = ()) -> CounterMetricFamily:
    """A number that only grows; the name is exported with the ending `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family
