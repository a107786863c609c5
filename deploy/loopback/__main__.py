"""python -m deploy.loopback up|down|status [STORE ...]: the production profile's stores on this machine."""

import argparse
import sys
from pathlib import Path

from core.errors import ChurnError
from deploy.loopback.place import Place
from deploy.loopback.stores import NAMES, down, states, up

FOLDER = Path("var/production")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.loopback", description=__doc__)
    parser.add_argument("act", choices=("up", "down", "status"))
    parser.add_argument(
        "stores", nargs="*", metavar="STORE", help=f"some of {', '.join(NAMES)}; default: all"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    parser.add_argument("--force", action="store_true", help="down: end them as a crash would")
    given = parser.parse_args()
    names = given.stores or list(NAMES)
    try:
        place = Place.at(given.folder)
        if given.act == "up":
            up(place, names, _show)
            _show(f"all addresses are in {place.environment}; next: make run PROFILE=production")
        elif given.act == "down":
            down(place, names, _show, given.force)
        else:
            for name, state in states(place).items():
                _show(f"{name}: {state}")
    except ChurnError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
