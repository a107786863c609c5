"""`churn init` on ugly files: the overlay says what a careful person would, and each doubt is a real one."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ugly_files import MAKERS, Expected

from churn.init.overlay import render
from churn.init.propose import propose
from churn.settings import load_settings

SPEC = load_settings().features


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_overlay_of_an_ugly_file(maker: Any, tmp_path: Path) -> None:
    file, expected = maker(tmp_path)
    proposal = propose(str(file), SPEC, {})
    text = render(proposal)
    overlay = yaml.safe_load(text)
    _agrees(overlay, expected)
    doubts = {doubt.key for doubt in proposal.notes.doubts}
    assert doubts <= expected.doubts, f"false doubts {doubts - expected.doubts}"
    for doubt in proposal.notes.doubts:
        assert f"DOUBT {doubt.key}:" in text
    out = tmp_path / "overlay.yaml"
    out.write_text(text)
    assert load_settings("local", [out]).data.shape == expected.shape


def _agrees(overlay: dict[str, Any], expected: Expected) -> None:
    data = overlay["data"]
    assert data["shape"] == expected.shape
    for key, value in expected.source.items():
        if isinstance(value, dict):
            found = data["source"].get(key, {})
            assert {k: found.get(k) for k in value} == value, key
        else:
            assert data["source"].get(key) == value, key
    features = {f["name"]: f for f in overlay["features"].get("features", [])}
    assert {name: features.get(name, {}).get("dtype") for name in expected.features} == expected.features
    read = {f.get("sql", f'"{name}"') for name, f in features.items()}
    for column in expected.absent:
        assert not any(f'"{column}"' in sql for sql in read), column
