"""The generated reference is complete, and its pictures are drawn."""

from xml.etree import ElementTree

import pytest
import reference
import site_pages

from churn.cli import parser
from features.spec import FeaturesConfig
from handlers import telemetry
from support.documents import REPOSITORY, blocks

PAGES = reference.pages()


def test_every_setting_has_a_meaning() -> None:
    """A missing one is written as a docstring below the field in the config class."""
    settings = list(reference.settings())
    assert len(settings) > 200
    assert [setting.key for setting in settings if not setting.meaning] == []


@pytest.mark.parametrize(
    "line",
    [
        "`training.epochs` <small>integer above 0 or null; default `null`</small>",
        "`gateway.port` <small>integer at least 0 at most 65535; default `8080`</small>",
        "`rollout.stages[].weight` <small>integer at least 0 at most 100; default none: required</small>",
        "`tuning.space.NAME.low` <small>number or null; default `null`</small>",
    ],
)
def test_a_setting_is_shown_with_type_and_shipped_value(line: str) -> None:
    assert line in PAGES["reference/settings.md"].splitlines()


def test_every_command_metric_and_feature_is_shown() -> None:
    names = [name for name, _ in reference.commands(parser())]
    assert {"run", "rollout judge"} <= set(names) and len(names) > 35
    assert all(f"## churn {name}\n" in PAGES["reference/commands.md"] for name in names)
    metrics = (*telemetry.HISTOGRAMS, *telemetry.COUNTERS, *telemetry.GAUGES)
    assert all(f"`{metric.name}`" in PAGES["reference/metrics.md"] for metric in metrics)
    assert "`churn_rollout_notices_lost_total`" in PAGES["reference/metrics.md"]
    spec = FeaturesConfig.model_validate(
        reference.yaml.safe_load((reference.CONFIGS / "features.yaml").read_text())
    )
    shown = PAGES["reference/features.md"]
    assert all(f"`{feature.name}`" in shown for feature in (*spec.features, *spec.derived))
    assert "## POST /v2/models/churn/versions/{version}/infer" in PAGES["reference/http-api.md"]


def test_the_picture_of_the_rooms_is_drawn() -> None:
    (picture,) = [b.text for b in blocks(REPOSITORY / "docs" / "architecture.md") if b.language == "mermaid"]
    drawn = site_pages.MERMAID.sub(
        lambda found: site_pages.flowchart(found[1]), f"```mermaid\n{picture}\n```"
    )
    texts = [node.text for node in ElementTree.fromstring(drawn).iter("text")]  # noqa: S314  (ours)
    assert {"churn/", "core/", "handlers/"} <= set(texts)
    with pytest.raises(ValueError, match="flowchart: 'a to b'"):
        site_pages.flowchart("a to b")
