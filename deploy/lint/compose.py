"""deploy/compose: podman-compose reads the file and fills in its variables, for each profile."""

import os

from deploy.lint.tool import DEPLOY, find, output

FILE = DEPLOY / "compose" / "compose.yaml"


def complaints() -> list[str]:
    """What podman-compose refuses. Raises Missing without podman, which it asks for its version."""
    compose = find("podman-compose", "make deploy-tools")
    find("podman", "apt-get install podman")
    environment = {**os.environ, "PATH": f"{os.path.dirname(compose)}{os.pathsep}{os.environ['PATH']}"}  # noqa: PTH120
    options = ("--profile", "dashboards", "--profile", "jobs", "--env-file", FILE.with_name("example.env"))
    code, said = output(compose, "--file", FILE, *options, "config", "--quiet", env=environment)
    return said.splitlines() if code != 0 else []
