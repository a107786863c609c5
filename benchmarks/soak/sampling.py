"""What the server's processes and files take, every few seconds."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EVERY_S = 10.0


@dataclass(frozen=True)
class Sample:
    at: float
    """Unix seconds."""
    part: str
    """A kind of process, or `disk` of a folder."""
    megabytes: float
    """Resident memory of all processes of the kind, or the size of the files."""
    descriptors: int
    processes: int


@dataclass
class Sampler:
    """Follows the processes below `root`, and folders."""

    root: int
    folders: Sequence[Path]
    samples: list[Sample] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self.samples += self._now()

    def _now(self) -> list[Sample]:
        at, found = time.time(), defaultdict[str, list[tuple[float, int]]](list)
        root = psutil.Process(self.root)
        for process in [root, *root.children(recursive=True)]:
            try:
                part = "supervisor" if process.pid == self.root else kind(process.cmdline())
                found[part].append((process.memory_info().rss / 1e6, process.num_fds()))
            except psutil.Error:  # it has ended meanwhile
                continue
        processes = [
            Sample(at, part, sum(rss for rss, _ in each), sum(fds for _, fds in each), len(each))
            for part, each in sorted(found.items())
        ]
        return processes + [Sample(at, f"disk {one.name}", size_mb(one), 0, 0) for one in self.folders]


def kind(command: Sequence[str]) -> str:
    """The part of the server that a process is."""
    text = " ".join(command)
    kinds = {"envoy": "envoy", "org.pytorch.serve": "torchserve", "model_service_worker": "workers"}
    return next((name for word, name in kinds.items() if word in text), "other")


def size_mb(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # it has been removed meanwhile
            continue
    return total / 1e6
