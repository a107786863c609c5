"""Puts the stand-in provider where Terraform looks for providers, in a folder of its own, and writes the
settings for it.

    python install.py FOLDER WHEEL

FOLDER then holds `aws.json.gz` (the schema), `mirror/` (the provider, an executable that starts provider.py
with the Python that runs this) and `terraform.rc`: with TF_CLI_CONFIG_FILE=FOLDER/terraform.rc, `terraform
init -backend=false` takes the provider from the mirror. No other setting of Terraform is changed, and no file
of the configuration.
"""

import gzip
import json
import shlex
import sys
from pathlib import Path

import schema

# The AWS provider whose schema cdktn-provider-aws 25.8.1 is generated from.
VERSION = "6.69.1"
ADDRESS = "registry.terraform.io/hashicorp/aws"
PLATFORM = "linux_amd64"


def install(folder: Path, wheel: Path) -> None:
    """Raises ValueError where the wheel does not have the expected form."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "aws.json.gz", "wt", encoding="utf-8") as file:
        json.dump(schema.read(str(wheel)), file, separators=(",", ":"))
    provider = folder / "mirror" / ADDRESS / VERSION / PLATFORM / f"terraform-provider-aws_v{VERSION}"
    provider.parent.mkdir(parents=True, exist_ok=True)
    program = Path(__file__).resolve().with_name("provider.py")
    provider.write_text(
        "#!/bin/sh\n"
        f"export STAND_IN_SCHEMA={shlex.quote(str(folder / 'aws.json.gz'))} STAND_IN_ADDRESS={ADDRESS}\n"
        # the interpreter of this environment, by its own path: a resolved link would leave the environment
        f'exec {shlex.quote(sys.executable)} {shlex.quote(str(program))} "$@"\n',
        encoding="utf-8",
    )
    provider.chmod(0o755)
    mirror = json.dumps(str(folder / "mirror"))
    (folder / "terraform.rc").write_text(
        f"provider_installation {{\n  filesystem_mirror {{\n    path = {mirror}\n  }}\n}}\n", encoding="utf-8"
    )


if __name__ == "__main__":
    install(Path(sys.argv[1]), Path(sys.argv[2]))
