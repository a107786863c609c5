"""`python -m training`: Lightning's command line over the fit that `churn train` does."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock

from churn.settings import CONFIGS, Settings
from model.program import score
from support.fits import fit_settings
from support.waits import free_port
from training.cli.command import main
from training.learn.fit import fit
from training.learn.module import ChurnModule
from training.train import prepare

ROOT = CONFIGS.parent
FLAGS = (
    "--config=configs/training.yaml",
    "--epochs=2",
    "--batch_size=256",
    "--learning_rate=0.003",
    "--model.hidden=[32]",
    "--model.seeds=[0, 1]",
)


@pytest.fixture(scope="session")
def filled(shared: Path, rows: pd.DataFrame) -> Path:
    """A workspace as `churn` fills it, up to the training set: an odd number of rows."""
    folder = shared / "filled"
    with FileLock(shared / "filled.lock"):
        if not folder.exists():
            (folder / "data" / "current").mkdir(parents=True)
            (folder / "data" / "current" / "manifest.json").write_text('{"shape": "transactions"}')
            chosen = rows[rows["user_id"] < "u_7"]
            chosen.iloc[: len(chosen) - 1 + len(chosen) % 2].to_parquet(
                folder / "training-set.parquet", index=False
            )
    return folder


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def command(workspace: Path, folder: Path, *arguments: str) -> list[str]:
    return [*arguments, f"--workspace={workspace}", f"--trainer.default_root_dir={folder}"]


def process(arguments: Sequence[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "training", *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def run(arguments: Sequence[str]) -> str:
    """In a separate process, as a user runs it; its output on stderr."""
    started = process(arguments)
    _, output = started.communicate(timeout=300)
    assert started.returncode == 0, output
    return output


def weights(file: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return state


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="module")
def fitted(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    output = run(command(filled, folder, "fit", *FLAGS))
    lines = [line for line in output.splitlines() if line.strip()]
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2", "Checkpoint"], output
    return folder


def test_a_checkpoint_contains_all_settings_of_its_fit(fitted: Path, small: Settings, filled: Path) -> None:
    content = torch.load(fitted / "best.ckpt", weights_only=True)["churn"]

    assert content["spec"] == small.features.contract()
    assert content["spec_digest"] == small.features.digest()
    assert tuple(content["inputs"]["numeric"]) == small.features.numeric
    assert (content["model"]["hidden"], content["model"]["seeds"]) == ([32], [0, 1])
    assert content["training"]["learning_rate"] == 0.003
    assert not {"tracking_uri", "artifacts_uri"} & content["training"].keys()
    module = ChurnModule.load_from_checkpoint(fitted / "best.ckpt")
    assert module.contract is not None
    raw = pd.read_parquet(filled / "training-set.parquet").iloc[:500]
    scores = score(module.contract.program, *module.contract.inputs.encode(raw))
    assert ((scores > 0) & (scores < 1)).all()


def test_the_same_command_ends_with_the_same_weights_and_scores(
    fitted: Path, filled: Path, tmp_path: Path
) -> None:
    assert main(command(filled, tmp_path, "fit", *FLAGS)) == 0
    assert same(weights(fitted / "best.ckpt"), weights(tmp_path / "best.ckpt"))
    for folder in (fitted, tmp_path):
        assert main(command(filled, folder, "predict")) == 0
    one, two = (pd.read_parquet(folder / "predictions.parquet") for folder in (fitted, tmp_path))
    pd.testing.assert_frame_equal(one, two, check_exact=True)

    assert main(command(filled, tmp_path, "fit", *FLAGS, "--seed_everything=7")) == 0
    assert not same(weights(fitted / "best.ckpt"), weights(tmp_path / "best.ckpt"))


def test_on_all_rows_it_is_the_fit_of_churn_train(filled: Path, small: Settings, tmp_path: Path) -> None:
    assert main(command(filled, tmp_path, "fit", *FLAGS, "--rows=all")) == 0
    model = small.model.model_copy(update={"hidden": (32,), "seeds": (0, 1)})
    training = small.training.model_copy(update={"epochs": 2, "batch_size": 256, "learning_rate": 0.003})
    settings = fit_settings(small, model=model, training=training)
    rows, split = prepare(pd.read_parquet(filled / "training-set.parquet"), settings)
    theirs = fit(rows.iloc[split.train], None, settings)

    ours = weights(tmp_path / "best.ckpt")
    assert same(ours, {f"members.{k}": v for k, v in theirs.program.members.state_dict().items()})
    assert main(command(filled, tmp_path, "test")) == 0
    scored = pd.read_parquet(tmp_path / "test_scores.parquet")
    assert np.abs(scored["score"] - theirs.score(rows.iloc[split.test])).max() < 1e-6
    found = json.loads((tmp_path / "test.json").read_text())
    assert found["test_rows"] == len(scored) == len(split.test)
    assert found["test_auroc"] > 0.75


def test_validate_repeats_what_fit_measured(fitted: Path, filled: Path) -> None:
    assert main(command(filled, fitted, "validate")) == 0
    measured, repeated = (
        json.loads((fitted / f"{name}.json").read_text())["validation_log_loss"]
        for name in ("fit", "validate")
    )
    assert repeated == pytest.approx(measured, abs=1e-7)


@pytest.mark.slow
def test_a_killed_fit_resumed_ends_with_the_weights_of_one_that_was_not(filled: Path, tmp_path: Path) -> None:
    long = [*FLAGS, "--epochs=12", "--rows=all"]
    killed = process(command(filled, tmp_path / "killed", "fit", *long))
    last, deadline = tmp_path / "killed" / "last.ckpt", time.monotonic() + 240
    while not last.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert 1 <= torch.load(last, weights_only=True)["epoch"] + 1 < 12

    assert main(command(filled, tmp_path / "killed", "fit", *long, f"--ckpt_path={last}")) == 0
    assert main(command(filled, tmp_path / "whole", "fit", *long)) == 0

    assert torch.load(last, weights_only=True)["epoch"] == 11
    assert same(weights(last), weights(tmp_path / "whole" / "last.ckpt"))


TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.mark.slow
def test_two_processes_score_every_row_once(fitted: Path, filled: Path, tmp_path: Path) -> None:
    best = f"--ckpt_path={fitted / 'best.ckpt'}"
    assert main(command(filled, tmp_path, "test", best)) == 0
    by_one = pd.read_parquet(tmp_path / "test_scores.parquet")
    assert len(by_one) % 2 == 1
    run(command(filled, tmp_path, "test", best, *TWO))
    by_two = pd.read_parquet(tmp_path / "test_scores.parquet")
    assert list(by_one["user_id"]) == list(by_two["user_id"])
    assert np.abs(by_one["score"] - by_two["score"]).max() < 1e-7


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_measure_every_row_once(
    fitted: Path, filled: Path, tmp_path: Path
) -> None:
    run(command(filled, tmp_path, "fit", *FLAGS, *TWO))
    measured = json.loads((tmp_path / "fit.json").read_text())["validation_log_loss"]
    alone = json.loads((fitted / "fit.json").read_text())["validation_log_loss"]
    assert main(command(filled, tmp_path, "validate")) == 0
    again = json.loads((tmp_path / "validate.json").read_text())["validation_log_loss"]

    assert measured == pytest.approx(again, abs=1e-7)  # gathered over both, and read by one from the file
    assert measured == pytest.approx(alone, abs=0.002)


@pytest.mark.slow
def test_torchrun_starts_two_processes_that_end_with_the_same_checkpoint(
    filled: Path, tmp_path: Path
) -> None:
    """As kserve/components/train-job starts them, one process on each of two nodes; gloo joins them."""
    run(command(filled, tmp_path / "lightning", "fit", *FLAGS, *TWO))
    port = free_port()
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
             f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}",
             "--module", "training",
             *command(filled, tmp_path / "torchrun", "fit", *FLAGS, "--trainer.num_nodes=2",
                      "--trainer.devices=1", "--trainer.strategy=ddp")],
            cwd=ROOT, env=os.environ | {"COLUMNS": "200"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "Checkpoint: " in said[0] and "Checkpoint: " not in said[1], "the first process writes it"
    assert same(weights(tmp_path / "lightning" / "last.ckpt"), weights(tmp_path / "torchrun" / "last.ckpt"))


def test_half_precision_learns_as_well(fitted: Path, filled: Path, tmp_path: Path) -> None:
    assert main(command(filled, tmp_path, "fit", *FLAGS, "--trainer.precision=bf16-mixed")) == 0
    one, two = (json.loads((folder / "fit.json").read_text()) for folder in (fitted, tmp_path))
    assert two["validation_log_loss"] == pytest.approx(one["validation_log_loss"], abs=0.005)
    assert two != one


def test_early_stopping_is_a_flag(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopping = ("--early_stopping.patience=1", "--early_stopping.min_delta=1", "--epochs=9")
    assert main(command(filled, tmp_path, "fit", *FLAGS, *stopping)) == 0
    shown = capsys.readouterr().err
    assert "epoch 2 of 9" in shown
    assert "epoch 3 of 9" not in shown


def test_the_printed_config_is_a_config(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["fit", *arguments, "--print_config"])
        assert not ended.value.code
        return capsys.readouterr().out

    text = printed(*FLAGS, f"--workspace={filled}", "--weight_decay=0.5")
    (tmp_path / "mine.yaml").write_text(text)
    content = yaml.safe_load(text)

    assert (content["weight_decay"], content["model"]["hidden"]) == (0.5, [32])
    assert str(ROOT) not in text.replace(str(filled), "")
    assert yaml.safe_load(printed(f"--config={tmp_path / 'mine.yaml'}")) == content


def test_overlays_and_set_are_those_of_churn(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same file and words give the same weights as flags do, and later wins."""
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(
        f"workspace: {filled}\n"
        "data: {max_rejected_share: 0.02}\n"
        "features: {ttl_days: 40}\n"
        "model: {hidden: [32], seeds: [0, 1], dropout: 0.4}\n"
        "training: {epochs: 5, batch_size: 256, learning_rate: 0.003}\n"
    )
    folder = f"--trainer.default_root_dir={tmp_path}"
    sets = ["--set", "training.epochs=1", "--set=model.dropout=0.3"]
    assert main(["fit", "--config", str(overlay), *sets, folder]) == 0
    content = torch.load(tmp_path / "best.ckpt", weights_only=True)["churn"]
    assert (content["training"]["epochs"], content["training"]["batch_size"]) == (1, 256)
    assert (content["model"]["hidden"], content["model"]["dropout"]) == ([32], 0.3)
    assert content["spec"]["ttl_days"] == 40
    first = weights(tmp_path / "best.ckpt")
    flags = [*FLAGS, "--epochs=1", "--model.dropout=0.3"]
    assert main(command(filled, tmp_path / "flat", "fit", *flags)) == 0
    assert same(first, weights(tmp_path / "flat" / "best.ckpt"))

    overlay.write_text("training: {epohcs: 3}\n")
    capsys.readouterr()
    for words, named in (
        (
            ["--config", str(overlay)],
            f"{overlay}: training.epohcs: unknown key (did you mean epochs?)",
        ),
        (["--set", "model.drop=3"], "--set: model.drop: unknown key (did you mean dropout?)"),
        (["--set", "epochs=3"], "--set: epochs: unknown key"),
        (["--profile", "nope"], "--profile nope: no such profile"),
    ):
        assert main(["fit", *words]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("training: ") and named in lines[0], lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--epochs=-3"], "epochs: Input should be greater than 0"),
        (["fit", "--epohcs=3"], "unrecognized arguments: --epohcs=3"),
        (["fit", "--model.dropout=2"], "dropout: Input should be less than 1"),
        (["fit", "--baselines=[oracle]"], "--baselines: Expected"),
        (["fit", "--trainer.accelerator=gpu"], "gpu"),
        (["fit", "--config=nowhere.yaml"], "--config: no YAML file there"),
        (["fit", "--ckpt_path=nowhere.ckpt"], "--ckpt_path nowhere.ckpt: not there"),
        (["fit", "--features=nowhere.yaml"], "nowhere.yaml: No such file"),
        (["fit", "--workspace=nowhere"], "run `churn ingest` first"),
        (["test"], "best.ckpt: not there; `python -m training fit` writes it"),
        (["test", "--ckpt_path=configs/training.yaml"], "not a checkpoint"),
        (["fat"], "invalid choice"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = [] if arguments[0] == "fat" else command(filled, tmp_path)
    assert main([arguments[0], *places, *arguments[1:]]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("training: ")
    assert message in lines[0]


def test_a_checkpoint_of_another_fit_is_not_resumed(
    fitted: Path, filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resumed = [*FLAGS, f"--ckpt_path={fitted / 'last.ckpt'}"]
    assert main(command(filled, tmp_path, "fit", *resumed, "--model.hidden=[16]")) == 2
    assert "ckpt_path: made with another model" in capsys.readouterr().err
    assert main(command(filled, tmp_path, "fit", *resumed, "--rows=all")) == 2
    assert "ckpt_path: made of other rows" in capsys.readouterr().err
