import numpy as np
import torch
from scipy.special import expit

from model.calibration import Calibration
from model.config import ModelConfig
from model.embeddings import learn_bins
from model.network import Network
from model.wide import Blend, Wide

MLP = ModelConfig(architecture="mlp", hidden=(8,), dropout=0.3, numeric_embedding="none")
TABM = MLP.model_copy(
    update={"architecture": "tabm", "submodels": 4, "numeric_embedding": "piecewise_linear"}
)


def test_an_unknown_category_has_no_effect_before_training() -> None:
    torch.manual_seed(0)
    network = Network(2, (3,), MLP)

    assert network.embeddings[0].weight[0].tolist() == [0.0] * 8
    assert network.embeddings[0].weight[1:].abs().min() > 0


def test_a_tabm_returns_a_logit_per_submodel_in_training_mode() -> None:
    numeric, codes = torch.randn(50, 2), torch.randint(0, 4, (50, 1))
    network = Network(2, (3,), TABM, learn_bins(numeric, TABM))

    assert network(numeric, codes).shape == (50, 4)
    assert network.eval()(numeric, codes).shape == (50,)


def test_bins_of_constant_columns_are_valid() -> None:
    columns = torch.stack(
        [torch.zeros(100), (torch.arange(100) > 97).float(), torch.linspace(-1e6, 1e6, 100)], dim=1
    )
    bins = learn_bins(columns, TABM)
    network = Network(3, (), TABM, bins).eval()

    assert [len(edges) for edges in bins] == [2, 2, 13]
    assert network(columns * 1e3, torch.zeros(100, 0, dtype=torch.int64)).isfinite().all()


def test_stacking_gives_weight_to_informative_paths_only() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=20_000)
    churned = (draw.random(20_000) < expit(truth)).astype(int)

    alone, _ = Blend.stack(truth, draw.normal(size=20_000), churned)
    against, _ = Blend.stack(draw.normal(size=20_000) - truth, 2 * truth, churned)

    assert torch.allclose(alone.weights, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), atol=0.06)
    assert against.weights[0] == 0.0  # a path that is wrong gets weight 0, not a negative weight
    assert abs(float(against.weights[1]) - 0.5) < 0.05


def test_the_wide_path_solves_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(0)
    numeric = draw.normal(size=(4000, 3))
    codes = draw.integers(1, 4, size=(4000, 1))
    effects = np.array([0.0, -1.0, 0.5, 1.0])
    churned = draw.random(4000) < expit(numeric @ [1.0, -0.5, 0.0] + effects[codes[:, 0]])
    wide = Wide(3, (3,))

    wide.solve(torch.from_numpy(numeric).float(), torch.from_numpy(codes), torch.from_numpy(churned).float())

    theirs = LogisticRegression(tol=1e-8).fit(np.hstack([numeric, np.eye(4)[codes[:, 0]][:, 1:]]), churned)
    ours = wide.numeric.weight.detach().numpy()[0]
    assert np.abs(ours - theirs.coef_[0, :3]).max() < 1e-3
    assert wide.effects[0].weight[0] == 0.0  # an unknown category has no effect


def test_platt_scaling_corrects_overconfidence_and_preserves_the_ranking() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=20_000)
    churned = (draw.random(20_000) < expit(truth)).astype(int)

    calibration = Calibration.platt(3 * truth + 1, churned)

    assert abs(float(calibration.slope) - 1 / 3) < 0.02
    assert abs(float(calibration.shift) + 1 / 3) < 0.05
    assert Calibration().is_identity
    assert not calibration.is_identity
    assert float(Calibration.platt(-truth, churned).slope) > 0  # a reversed score is not corrected
