"""Serves one of our servers until standard input ends, for a process of another commit: see paired.py.

    python -P serve_one.py WORKSPACE NAME < IDS      # with PYTHONPATH at the root of the commit to serve

The first line of the output is its address, as JSON. Only functions that all commits since 5c70239 have are
used.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.servers.contestants import CONTESTANTS, Ground
from benchmarks.servers.store import opened


def main() -> None:
    workspace, name = Path(sys.argv[1]), sys.argv[2]
    ids = tuple(json.loads(sys.stdin.readline()))
    with (
        opened("sqlite", workspace, lambda text: print(text, file=sys.stderr)) as settings,
        TemporaryDirectory(prefix="bench-paired-") as folder,
        CONTESTANTS[name](Ground(settings, Path(folder), Path("none"), ids)) as running,
    ):
        target = running.target
        place = {
            "pids": running.pids,
            "url": target.url,
            "body": target.body,
            "headers": target.headers,
            "archive": settings.files.archive_record.read_text(encoding="utf-8"),
        }
        print(json.dumps(place), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
