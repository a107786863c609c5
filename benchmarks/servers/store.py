"""The workspace that all servers share: made once by the real steps; features in SQLite or Redis."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.servers.process import free_port, stopped, wait_for
from churn.settings import Settings, load_settings

Progress = Callable[[str], None]


class StepFailed(RuntimeError):
    """One of our own commands did not do what the benchmark needs; the message is its last line."""


@contextmanager
def opened(name: str, folder: Path, progress: Progress) -> Iterator[Settings]:
    """A workspace whose online store is `name` (sqlite or redis), filled, with a packaged model."""
    if name == "sqlite":
        yield _by_the_steps(folder / "sqlite", progress)
        return
    made = _by_the_steps(folder / "sqlite", progress).files.root
    workspace = folder / "redis"
    if _older(workspace, made):
        shutil.rmtree(workspace, ignore_errors=True)
        shutil.copytree(made, workspace, symlinks=True)
    with redis_server(workspace / "redis") as port:
        address = f"127.0.0.1:{port}"
        online = f'features.online_store={{type: redis, connection_string: "{address}"}}'
        with redis.Redis(port=port) as client:
            empty = client.dbsize() == 0
        if empty:
            progress("putting the features into Redis")
            churn("features", "materialize", workspace=workspace, overrides=[online])
        churn("package", workspace=workspace, overrides=[online])
        yield load_settings(overrides=[f"workspace={workspace}", online])


def _by_the_steps(workspace: Path, progress: Progress) -> Settings:
    settings = load_settings(overrides=[f"workspace={workspace}"])
    if _digest_in(settings) == settings.features.digest():
        try:
            # the current online store and handlers, with the existing model
            churn("features", "materialize", workspace=workspace)
            churn("package", workspace=workspace)
            return settings
        except StepFailed as error:
            progress(f"made by another release: {error}")
    progress(f"making {workspace} by `churn run` (some minutes, once)")
    # a search for hyperparameters would change no server's speed
    churn("run", "--no-rollout", workspace=workspace, overrides=["tuning.trials=0"])
    return settings


def _digest_in(settings: Settings) -> str | None:
    """The feature spec of the workspace, if an archive was packaged in it."""
    if not settings.files.archive_record.is_file():
        return None
    manifest = json.loads(settings.files.feature_manifest.read_text(encoding="utf-8"))
    return str(manifest["spec_digest"])


def _older(copy: Path, original: Path) -> bool:
    program = Path("training") / "current" / "model.pt2"
    if not (copy / program).is_file():
        return True
    return (copy / program).read_bytes() != (original / program).read_bytes()


def churn(*command: str, workspace: Path, overrides: list[str] | None = None) -> None:
    """Runs a command of `churn`. Raises StepFailed with the last line of its error."""
    settings = [part for text in (f"workspace={workspace}", *(overrides or [])) for part in ("--set", text)]
    done = subprocess.run(
        [sys.executable, "-m", "churn", *command, *settings], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StepFailed(f"churn {' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """A separate redis-server on a free port; it writes its data to `folder` when it stops."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = subprocess.Popen(
        [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
            # one save point, far away: nothing is written under load, all of it at the end
            *("--save", "86400", "1"),
        ],
        stdout=subprocess.DEVNULL,
    )
    with stopped(process), redis.Redis(port=port) as client:
        wait_for(lambda: _answers(client), process, 30)
        yield port


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.BusyLoadingError):
        return False
