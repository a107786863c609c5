"""Converts boosted trees from the formats of libraries to the layout of model/trees.py."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tree:
    """Arrays over [nodes], inner nodes first, then leaves. A row continues at `below` if its input <=
    threshold, else at `above`."""

    column: NDArray[np.int64]
    threshold: NDArray[np.float64]
    below: NDArray[np.int64]
    """Index of the next node, counted from the tree's first node. A leaf points to itself."""
    above: NDArray[np.int64]
    value: NDArray[np.float64]
    """Contribution of each leaf to the logit; 0 for an inner node."""
    depth: int

    def scaled(self, weight: float) -> "Tree":
        return replace(self, value=self.value * weight)


def from_lightgbm(text: str) -> list[Tree]:
    """Read a model of numeric columns in LightGBM's text format (Booster.model_to_string)."""
    trees = text.partition("end of trees")[0].split("\nTree=")[1:]
    return [
        _leafwise(dict(line.split("=", 1) for line in tree.splitlines() if "=" in line)) for tree in trees
    ]


def from_catboost(text: str) -> list[Tree]:
    """Read a model of symmetric trees of numeric columns, with its bias, in CatBoost's JSON format."""
    model = json.loads(text)
    scale, (bias,) = model["scale_and_bias"]
    trees = [_symmetric(tree).scaled(scale) for tree in model["oblivious_trees"]]
    return [*trees, _leaf(np.array([bias]))] if bias else trees


def _leafwise(fields: Mapping[str, str]) -> Tree:
    value = np.array(fields["leaf_value"].split(), dtype=np.float64)
    inner = len(value) - 1
    if not inner:
        return _leaf(value)
    # LightGBM writes a child that is a leaf as -1 - leaf
    below, above = (
        np.where(child >= 0, child, inner - 1 - child)
        for child in (np.array(fields[f"{side}_child"].split(), dtype=np.int64) for side in ("left", "right"))
    )
    level = np.zeros(inner + len(value), dtype=np.int64)
    for node in range(inner):  # a parent is written before its children
        level[[below[node], above[node]]] = level[node] + 1
    return _tree(
        np.array(fields["split_feature"].split(), dtype=np.int64),
        np.array(fields["threshold"].split(), dtype=np.float64),
        below,
        above,
        value,
        int(level.max()),
    )


def _symmetric(tree: Mapping[str, Any]) -> Tree:
    """All nodes of a level have the same split. In level order, the children of `i` are 2i + 1 and 2i + 2."""
    splits, leaves = tree["splits"] or [], np.array(tree["leaf_values"], dtype=np.float64)
    depth = len(splits)
    if not depth:
        return _leaf(leaves)
    level = np.repeat(np.arange(depth), 2 ** np.arange(depth))
    node, path = np.arange(2**depth - 1), np.arange(2**depth)
    # the first split is the lowest bit of CatBoost's leaf index, but the highest bit of the path
    leaf = sum(((path >> (depth - 1 - bit)) & 1) << bit for bit in range(depth))
    return _tree(
        np.array([split["float_feature_index"] for split in splits], dtype=np.int64)[level],
        np.array([split["border"] for split in splits], dtype=np.float64)[level],
        2 * node + 1,
        2 * node + 2,
        leaves[leaf],
        depth,
    )


def _leaf(value: NDArray[np.float64]) -> Tree:
    nothing = np.zeros(0, dtype=np.int64)
    return _tree(nothing, np.zeros(0), nothing, nothing, value, 0)


def _tree(
    column: NDArray[np.int64],
    threshold: NDArray[np.float64],
    below: NDArray[np.int64],
    above: NDArray[np.int64],
    leaves: NDArray[np.float64],
    depth: int,
) -> Tree:
    """Make a tree from the arrays of its inner nodes and the values of its leaves."""
    inner = len(column)
    own = np.arange(inner, inner + len(leaves))
    return Tree(
        np.concatenate([column, np.zeros(len(leaves), dtype=np.int64)]),
        np.concatenate([threshold, np.zeros(len(leaves))]),
        np.concatenate([below, own]),
        np.concatenate([above, own]),
        np.concatenate([np.zeros(inner), leaves]),
        depth,
    )
