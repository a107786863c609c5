"""Checks of keys and certificates: that they exist, are private, and belong to the data and the archives."""

import os
import stat
from datetime import timedelta

from core.errors import ConfigError
from core.private_file import read_private
from pipelines.doctor.check import Installation, Result, broken, ok, warning

OTHERS = 0o077
ENDS_SOON = timedelta(days=14)


def modes(installation: Installation) -> Result:
    """No file in the folder of secrets is open to other users, except certificates, which are public."""
    folder = installation.files.mask_key.parent
    if not folder.is_dir():
        return ok(f"{folder} does not exist yet; the first command creates it")
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix != ".crt"]
    exposed = [file for file in files if stat.S_IMODE(file.stat().st_mode) & OTHERS]
    if exposed:
        names = ", ".join(file.name for file in exposed)
        return broken(
            f"open to other users in {folder}: {names}",
            f"chmod 600 {' '.join(str(file) for file in exposed)}; replace keys that others may have read",
        )
    return ok(f"{len(files)} files in {folder}, private to their owner")


def mask_key(installation: Installation) -> Result:
    """The key that masks identifiers exists, and is the one that masked the records."""
    from data.mask import load_key
    from data.records.versions import current_manifest
    from handlers.identity import key_check

    settings, files = installation.settings, installation.files
    variable = settings.data.mask_key_env
    given = variable in os.environ
    if not given and not files.mask_key.exists():
        if files.manifest.exists():
            return broken(
                f"{files.mask_key} is missing, and records were masked with it",
                f"restore the file from your backup, or set {variable}",
            )
        return ok("none yet; churn ingest makes one")
    key = load_key(settings.data, files)  # the file exists, so none is made
    where = f"in {variable}" if given else f"in {files.mask_key}"
    if not files.manifest.exists():
        return ok(f"{where}; there are no records yet")
    if current_manifest(files)["key_check"] != key_check(key):
        return broken(
            f"the key {where} is not the one that masked the records",
            f"restore the former key, or ingest again: churn run --set data.mask_key_env={variable}",
        )
    return ok(f"{where}; it masked the current records")


def signing_key(installation: Installation) -> Result:
    """Archives can be signed, and the signer is trusted."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from training.archive.signing import load_signing_key, trusted_signers

    training, files = installation.settings.training, installation.files
    given = training.signing_key_env in os.environ
    if not given and not files.signing_key.exists():
        if not files.archive_record.exists():
            return ok("none yet; churn package makes one")
        return warning(
            f"{files.signing_key} is missing: nothing can be packaged as the same signer",
            f"restore the file from your backup, or set {training.signing_key_env}",
        )
    if not given:
        read_private(files.signing_key, "signing key", ConfigError)
    trusted = trusted_signers(training.trusted_signers, files)
    public = load_signing_key(training.signing_key_env, files).public_key()
    name = trusted.get(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
    if name is None:
        return warning(
            "the signing key's signer is not trusted here: archives of this workspace will be refused",
            f"add the public key to {training.trusted_signers or files.trusted_signers}",
        )
    return ok(f"signs as {name}, which is one of {len(trusted)} trusted signers")


def api_keys(installation: Installation) -> Result:
    """The list of API keys can be read, and the keys are valid."""
    from serving.gateway.keys import Keys, digest, own_key

    settings, files, now = installation.settings, installation.files, installation.clock()
    if not settings.gateway.keys:
        return warning("requests need no key: gateway.keys is false", "--set gateway.keys=true")
    keys = Keys(files.api_keys).all()
    if not keys:
        return ok("none yet; churn serve makes the first one")
    valid = [key for key in keys if key.ends > now]
    if not valid:
        return broken("every API key has expired", "churn keys add NAME")
    own = own_key(files.api_key)
    if own is not None and digest(own) not in {key.sha256 for key in valid}:
        return warning(
            "this workspace's own key is not in the list or has expired",
            "churn keys add NAME, and write the key to " + str(files.api_key),
        )
    soon = sorted({key.name for key in valid if key.ends < now + ENDS_SOON})
    if soon:
        return warning(
            f"expires within {ENDS_SOON.days} days: {', '.join(soon)}", f"churn keys rotate {soon[0]}"
        )
    return ok(f"{len(valid)} valid keys")


def certificate(installation: Installation) -> Result:
    """The gateway's certificate is valid, where the user gave one."""
    from cryptography import x509

    tls, now = installation.settings.gateway.tls, installation.clock()
    if tls.certificate is None:
        return ok("none is configured; the gateway makes its own where it needs one")
    try:
        found = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
    except (OSError, ValueError) as error:
        return broken(
            f"{tls.certificate}: {type(error).__name__}", "set gateway.tls.certificate to a PEM file"
        )
    until = f"{tls.certificate} is valid until {found.not_valid_after_utc:%Y-%m-%d}"
    if found.not_valid_after_utc < now:
        return broken(until, "replace the certificate")
    return (
        warning(until, "renew the certificate") if found.not_valid_after_utc < now + ENDS_SOON else ok(until)
    )
