"""A detached Ed25519 signature beside an archive, checked before anything is loaded from the archive.

`churn-<version>.mar.sig` contains the archive's sha256 and the signer's public key; the signature covers
both. It does not contain the file name, so that an archive can be renamed on its way to a server.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from core.errors import ArchiveError, ConfigError
from core.private_file import make_private, read_private
from core.workspace import Workspace, write_atomically

FORMAT = "churn-archive-signature/1"
SUFFIX = ".sig"
LARGEST_SIGNATURE = 4096
"""Most bytes of a signature file; ours have about 300."""

OWN = "this-workspace"

Signers = Mapping[bytes, str]
"""Public key (32 bytes) -> name."""


@dataclass(frozen=True)
class Signed:
    """The signer's name and the sha256 of a signed archive."""

    signer: str
    sha256: str


def signature_file(archive: Path) -> Path:
    """The path of an archive's signature."""
    return archive.with_name(archive.name + SUFFIX)


def sign(archive: Path, key: Ed25519PrivateKey) -> Path:
    """Writes the signature of `archive` beside it; equal archives and keys give equal signatures."""
    statement = {
        "format": FORMAT,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "key": _base64(key.public_key().public_bytes_raw()),
    }
    signature = {**statement, "signature": _base64(key.sign(_message(statement)))}
    file = signature_file(archive)
    write_atomically(file, _text(signature))
    return file


def check_signature(archive: Path, data: bytes, trusted: Signers) -> Signed:
    """Checks the signature beside `archive`, whose bytes are `data`; the signer and the sha256.

    Raises ArchiveError unless it is a signature of these bytes by one of `trusted`.
    """
    text, content = _read(archive)
    key, signature = _decoded(content, "key", 32), _decoded(content, "signature", 64)
    file = signature_file(archive).name
    if _text(content) != text:
        raise ArchiveError(f"{file}: not as `churn package` wrote it; fetch or package the model again")
    if key not in trusted:
        raise ArchiveError(
            f"{file}: signed by the unknown key {_base64(key)}; if it is to be trusted, "
            "add a line with a name and this key to the trusted signers"
        )
    found = hashlib.sha256(data).hexdigest()
    if content["sha256"] != found:
        raise ArchiveError(
            f"{archive.name}: sha256 {found[:12]} is not the signed {str(content['sha256'])[:12]}; "
            "the archive was changed or the signature is of another one"
        )
    statement = {name: content[name] for name in ("format", "sha256", "key")}
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, _message(statement))
    except InvalidSignature:
        raise ArchiveError(f"{file}: not a signature by the key it names; do not use this file") from None
    return Signed(trusted[key], found)


def load_signing_key(variable: str, files: Workspace) -> Ed25519PrivateKey:
    """The private key: PEM in the environment `variable`, else the workspace's key, made when absent.

    A workspace without a list of trusted signers gets one with its key. Raises ConfigError for anything but
    an Ed25519 key and for a key file that others may read. No message contains the key.
    """
    text = os.environ.get(variable)
    if text is not None:
        return _private_key(text, f"the environment variable {variable}")
    if not files.signing_key.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        make_private(files.signing_key, pem.decode("ascii"))
    workspace_key = _private_key(
        read_private(files.signing_key, "signing key", ConfigError), str(files.signing_key)
    )
    if not files.trusted_signers.exists():
        write_atomically(files.trusted_signers, trust_line(OWN, workspace_key.public_key()))
    return workspace_key


def trust_line(name: str, key: Ed25519PublicKey) -> str:
    """A line of the file of trusted signers."""
    return f"{name} {_base64(key.public_bytes_raw())}\n"


def trusted_signers(configured: Path | None, files: Workspace) -> Signers:
    """`read_signers` of the configured file, or of the workspace's file."""
    return read_signers(configured or files.trusted_signers)


def read_signers(file: Path) -> Signers:
    """Reads lines of a name and a base64 public key, `#` for comments. Raises ConfigError with the line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: the trusted signers cannot be read ({type(error).__name__}); give a file with a name "
            "and a public key a line, or run `churn package`, which creates one with its key"
        ) from None
    signers: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        if words := line.partition("#")[0].split():
            key = _key_of(words[1]) if len(words) == 2 else None
            if key is None:
                raise ConfigError(f"{file}: line {number}: expected a name and an Ed25519 key in base64")
            signers[key] = words[0]
    return signers


def _read(archive: Path) -> tuple[str, dict[str, Any]]:
    """The signature file's text, and its parsed content."""
    file = signature_file(archive)
    try:
        if file.stat().st_size > LARGEST_SIGNATURE:
            raise ArchiveError(f"{file.name}: too large for a signature; fetch or package the model again")
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
    except FileNotFoundError:
        raise ArchiveError(
            f"{archive.name}: unsigned: {file.name} is not beside it; package the model, or fetch both files"
        ) from None
    except OSError as error:
        raise ArchiveError(f"{file}: {error.strerror}; make it readable") from None
    except (ValueError, RecursionError):
        raise ArchiveError(f"{file.name}: not a signature; fetch or package the model again") from None
    fields = {"format", "sha256", "key", "signature"}
    if not isinstance(content, dict) or set(content) != fields or content["format"] != FORMAT:
        raise ArchiveError(f"{file.name}: not a signature of the form {FORMAT}; package the model again")
    return text, content


def _decoded(content: Mapping[str, Any], name: str, size: int) -> bytes:
    try:
        found = base64.b64decode(str(content.get(name)), validate=True)
    except ValueError:  # also covers binascii.Error and characters that are not ASCII
        found = b""
    if len(found) != size:
        raise ArchiveError(f"the signature file: {name} is damaged; fetch or package the model again")
    return found


def _key_of(text: str) -> bytes | None:
    try:
        key = base64.b64decode(text, validate=True)
        Ed25519PublicKey.from_public_bytes(key)
    except (binascii.Error, ValueError):
        return None
    return key


def _private_key(text: str, where: str) -> Ed25519PrivateKey:
    key = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{where}: not an Ed25519 private key in PEM without a password; "
            "make one with openssl genpkey -algorithm ed25519"
        )
    return key


def _message(statement: Mapping[str, str]) -> bytes:
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
