import numpy as np
import torch
from scipy.special import expit

from model.calibration import Calibration
from model.config import ModelConfig
from model.network import Network, Wide


def test_an_unknown_category_moves_nothing_before_training() -> None:
    torch.manual_seed(0)
    network = Network(2, (3,), ModelConfig(hidden=(8,)))

    assert network.embeddings[0].weight[0].tolist() == [0.0] * 8
    assert network.embeddings[0].weight[1:].abs().min() > 0


def test_the_wide_path_starts_alone() -> None:
    torch.manual_seed(0)
    network = Network(2, (3,), ModelConfig(hidden=(8,), wide=True)).eval()
    numeric, codes = torch.randn(5, 2), torch.tensor([[0], [1], [2], [3], [1]])

    assert network(numeric, codes).tolist() == [0.0] * 5
    assert network.wide is not None
    network.wide.solve(numeric, codes, torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0]))
    assert torch.equal(network(numeric, codes), network.wide(numeric, codes))


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
    assert wide.effects[0].weight[0] == 0.0  # unknown stays without effect


def test_platt_scaling_repairs_overconfidence_and_keeps_the_order() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=20_000)
    churned = (draw.random(20_000) < expit(truth)).astype(int)

    calibration = Calibration.platt(3 * truth + 1, churned)

    assert abs(float(calibration.slope) - 1 / 3) < 0.02
    assert abs(float(calibration.shift) + 1 / 3) < 0.05
    assert Calibration().is_identity
    assert not calibration.is_identity
    assert float(Calibration.platt(-truth, churned).slope) > 0  # a reversed score is not mended by stealth
