import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.errors import TrainingError
from model.calibration import Calibration
from model.config import ModelConfig
from model.embeddings import learn_bins
from model.export import export_program, load_program
from model.network import Network
from model.preprocessing import Preprocessing
from model.program import MAX_BATCH, Program, score
from model.wide import Blend, Wide

PLAIN = ModelConfig(
    architecture="mlp", hidden=(16, 16), dropout=0.3, numeric_embedding="none", wide=True, seeds=(0, 1, 2)
)
CONFIGS = {
    "plain": PLAIN,
    "of a log": PLAIN.model_copy(update={"wide": False}),
    "of a table": PLAIN.model_copy(
        update={"architecture": "tabm", "submodels": 4, "numeric_embedding": "piecewise_linear"}
    ),
    "periodic": PLAIN.model_copy(update={"numeric_embedding": "periodic", "scaling": "quantile"}),
}
ROOMS = ("core", "model", "training", "features", "data", "handlers", "churn", "tabm", "rtdl_num_embeddings")
"""Packages that the network is built with, which are not importable there either."""


def made(cardinalities: tuple[int, ...], config: ModelConfig = PLAIN) -> Program:
    seen = numbers(500, seed=9)
    preprocessing = Preprocessing.fit(seen, config.log1p, config.scaling)
    bins = learn_bins(preprocessing(torch.from_numpy(seen)), config)
    torch.manual_seed(0)
    size = preprocessing.outputs, cardinalities
    members = [Network(*size, config, bins) for _ in range(3)]
    wide = Wide(*size) if config.wide else None
    program = Program(preprocessing, members, Calibration(1.2, -0.3), wide, bins)
    if wide is not None:
        program.blend = Blend((0.7, 0.4, -0.1))
    for parameter in program.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return program.eval()


def numbers(rows: int, seed: int = 1) -> NDArray[np.float64]:
    draw = np.random.default_rng(seed)
    found = draw.lognormal(3, 2, size=(rows, 5))
    found[draw.random((rows, 5)) < 0.2] = np.nan
    return found


def codes(rows: int, cardinalities: tuple[int, ...]) -> NDArray[np.int64]:
    draw = np.random.default_rng(2)
    return (
        np.stack([draw.integers(0, n + 1, rows) for n in cardinalities], axis=1)
        if cardinalities
        else np.zeros((rows, 0), np.int64)
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("cardinalities", [(), (3, 5)])
def test_the_exported_program_equals_the_network_for_every_batch(
    tmp_path: Path, cardinalities: tuple[int, ...], name: str
) -> None:
    program = made(cardinalities, CONFIGS[name])
    export_program(program, tmp_path / "model.pt2")
    exported = load_program(tmp_path / "model.pt2")

    for rows in (1, 2, 17, MAX_BATCH):
        arrays = torch.from_numpy(numbers(rows)), torch.from_numpy(codes(rows, cardinalities))
        found = exported(*arrays)
        assert found.shape == (rows,)
        assert found.dtype == torch.float64
        assert ((found >= 0) & (found <= 1)).all()
        assert (found - program(*arrays)).abs().max() <= 1e-6


def test_many_rows_are_scored_in_parts(tmp_path: Path) -> None:
    program = made((3,))
    export_program(program, tmp_path / "model.pt2")
    rows = 2 * MAX_BATCH + 5

    found = score(load_program(tmp_path / "model.pt2"), numbers(rows), codes(rows, (3,)))

    assert np.abs(found - score(program, numbers(rows), codes(rows, (3,)))).max() <= 1e-6
    assert len(score(program, numbers(0), codes(0, (3,)))) == 0


def test_the_same_network_gives_the_same_bytes_without_paths_of_this_machine(tmp_path: Path) -> None:
    digests = set()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "model.pt2"
        export_program(made((3, 5)), file)
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
        assert str(Path(__file__).parents[2]).encode() not in file.read_bytes()
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["of a log", "of a table"])
def test_the_exported_program_runs_without_this_repository(tmp_path: Path, name: str) -> None:
    program = made((3, 5), CONFIGS[name])
    export_program(program, tmp_path / "model.pt2")
    np.savez(tmp_path / "rows.npz", numeric=numbers(7), codes=codes(7, (3, 5)))
    code = f"""
import sys
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {ROOMS!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Closed())
import numpy as np, torch
rows = np.load('rows.npz')
program = torch.export.load('model.pt2').module()
out = program(torch.from_numpy(rows['numeric']), torch.from_numpy(rows['codes']))
np.save('out.npy', out.numpy())
assert not any(name.split('.')[0] in {ROOMS!r} for name in sys.modules)
"""
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True, timeout=120)

    assert np.abs(np.load(tmp_path / "out.npy") - score(program, numbers(7), codes(7, (3, 5)))).max() <= 1e-6


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_restores_the_network_from_plain_tensors(tmp_path: Path, name: str) -> None:
    program = made((3, 5), CONFIGS[name])
    program.save(tmp_path / "members.ckpt", (3, 5), CONFIGS[name])

    torch.load(tmp_path / "members.ckpt", weights_only=True)
    restored = Program.load(tmp_path / "members.ckpt")

    assert np.array_equal(
        score(restored, numbers(50), codes(50, (3, 5))), score(program, numbers(50), codes(50, (3, 5)))
    )


def test_a_program_that_returns_nan_is_not_exported(tmp_path: Path) -> None:
    program = made(())
    torch.nn.init.constant_(program.members[0].deep[-1].bias, torch.nan)  # type: ignore[union-attr, index]

    with pytest.raises(TrainingError, match="differs from the network"):
        export_program(program, tmp_path / "model.pt2")
