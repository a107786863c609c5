"""Trees as tensors give the same predictions as the libraries that grew them."""

from pathlib import Path

import catboost
import lightgbm
import numpy as np
import pytest
import torch
from scipy.special import expit

from model.calibration import Calibration
from model.config import ModelConfig
from model.export import export_program, load_program
from model.network import Network
from model.preprocessing import Preprocessing
from model.program import Program
from model.target_rates import encode, encode_out_of_fold, rates
from model.tree_formats import from_catboost, from_lightgbm
from model.trees import MAX_DEPTH, Trees
from training.learn.boosting import grow_forest
from training.trees.growth import Growth

SIZES = (3, 40)


def drawn(rows: int = 3000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    numeric = draw.normal(size=(rows, 4)).astype(np.float32)
    codes = np.column_stack([draw.integers(0, n + 1, rows) for n in SIZES])
    truth = expit(2 * (numeric[:, 0] > 0) * (codes[:, 0] == 2) - 1 + 0.05 * codes[:, 1])
    churned = (draw.random(rows) < truth).astype(np.float32)
    return torch.from_numpy(numeric), torch.from_numpy(codes), torch.from_numpy(churned)


@pytest.mark.parametrize("settings", [{"num_leaves": 31}, {"num_leaves": 4}, {"extra_trees": True}])
def test_the_tensors_equal_lightgbm(settings: dict[str, object]) -> None:
    numeric, codes, churned = (part.numpy() for part in drawn())
    teach = np.hstack([numeric, encode_out_of_fold(codes, churned, SIZES, 0)])
    given = {"objective": "binary", "max_depth": MAX_DEPTH, "verbosity": -1, "num_threads": 1, **settings}
    boosters = [lightgbm.train({**given, "seed": s}, lightgbm.Dataset(teach, churned), 30) for s in (0, 1)]
    found = rates(codes, churned, SIZES)
    trees = Trees(SIZES)
    trees.load(
        [
            tree.scaled(weight)
            for weight, booster in zip((0.3, 1.2), boosters, strict=True)
            for tree in from_lightgbm(booster.model_to_string())
        ],
        found,
    )

    ours = trees(torch.from_numpy(numeric), torch.from_numpy(codes)).numpy()

    inputs = np.hstack([numeric, encode(found, codes)])
    theirs = sum(w * b.predict(inputs, raw_score=True) for w, b in zip((0.3, 1.2), boosters, strict=True))
    assert np.abs(ours - theirs).max() < 1e-9


@pytest.mark.parametrize("depth", [1, 4, 6])
@pytest.mark.parametrize("from_average", [False, True])
def test_the_tensors_equal_catboost(tmp_path: Path, depth: int, from_average: bool) -> None:
    numeric, _, churned = (part.numpy() for part in drawn())
    model = catboost.CatBoostClassifier(
        iterations=40,
        depth=depth,
        boost_from_average=from_average,
        thread_count=1,
        verbose=False,
        allow_writing_files=False,
    )
    model.fit(numeric, churned)
    model.save_model(str(tmp_path / "model.json"), format="json")
    trees = Trees(())
    trees.load(from_catboost((tmp_path / "model.json").read_text()))
    # also values that equal a border
    borders = np.unique(trees.threshold[trees.threshold != 0].numpy())
    inputs = np.vstack([numeric, *(np.full((1, 4), border) for border in borders)]).astype(np.float32)

    ours = trees(torch.from_numpy(inputs), torch.zeros(len(inputs), 0, dtype=torch.int64)).numpy()

    theirs = model.predict(inputs, prediction_type="RawFormulaVal")
    assert np.abs(ours - theirs).max() < 1e-9


def test_trees_without_a_split_return_the_mean() -> None:
    churned = np.repeat([0.0, 1.0], [30, 10])
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1}, lightgbm.Dataset(np.zeros((40, 4)), churned), 3
    )
    trees = Trees(())
    trees.load(from_lightgbm(booster.model_to_string()))

    logit = trees(torch.zeros(2, 4), torch.zeros(2, 0, dtype=torch.int64))

    assert trees.has_trees
    assert logit.tolist() == pytest.approx([np.log(10 / 30)] * 2)


def test_rates_of_rare_or_uninformative_categories_are_near_the_mean() -> None:
    draw = np.random.default_rng(0)
    codes = np.column_stack([np.arange(1, 4001), np.r_[np.repeat([1, 2], 1999), 3, 3]])
    churned = (draw.random(4000) < np.where(codes[:, 1] == 1, 0.2, 0.6)).astype(float)

    identifier, kind = rates(codes, churned, (4000, 3))

    assert np.ptp(identifier) < 0.05
    assert np.abs(kind[1:3] - [0.2, 0.6]).max() < 0.05
    assert abs(kind[0] - churned.mean()) < 1e-6  # never seen


def test_the_rate_of_a_training_row_excludes_its_own_label() -> None:
    codes = np.arange(1, 1001)[:, None]
    churned = np.random.default_rng(0).integers(0, 2, 1000).astype(float)

    seen = encode_out_of_fold(codes, churned, (1000,), seed=0)[:, 0]

    assert abs(np.corrcoef(seen, churned)[0, 1]) < 0.2


@pytest.mark.parametrize("iterations", [1, 20])
def test_a_program_with_trees_is_exported_and_read_again(tmp_path: Path, iterations: int) -> None:
    numeric, codes, churned = drawn()
    config = ModelConfig(
        architecture="mlp", hidden=(4,), dropout=0.0, submodels=1, numeric_embedding="none", wide=True
    )
    from model.wide import Wide

    wide = Wide(4, SIZES)
    forest = [
        (0.3, Growth(8, 0.1, iterations=iterations)),
        (0.5, Growth(31, 0.1, randomised=True, iterations=iterations)),
        (0.2, Growth(16, 0.1, symmetric=True, iterations=iterations)),
    ]
    grow_forest(wide.trees, (numeric, codes, churned), forest, 0, SIZES)
    wide.shares.copy_(torch.tensor([0.0, 1.0]))
    preprocessing = Preprocessing.fit(numeric.double().numpy())
    program = Program(preprocessing, [Network(4, SIZES, config)], Calibration(), wide).eval()

    program.save(tmp_path / "model.pt", SIZES, config)
    export_program(program, tmp_path / "model.pt2")

    with torch.inference_mode():
        expected = program(numeric.double(), codes)
        assert torch.equal(Program.load(tmp_path / "model.pt")(numeric.double(), codes), expected)
        exported = load_program(tmp_path / "model.pt2")(numeric.double(), codes)
    assert (exported - expected).abs().max() < 1e-6
