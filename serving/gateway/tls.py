"""TLS at the gateway: the configured files, or a generated certificate and key for use on this machine.

The generated certificate is self-signed, for this machine's names. A client trusts it by its file.
"""

import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import ServingError
from core.private_file import read_private
from core.workspace import Workspace, write_atomically
from serving.addresses import ALL_INTERFACES, LOOPBACK_HOSTS
from serving.config import GatewayConfig
from serving.gateway.keys import replace_privately

VALID_FOR, RENEW_BEFORE = timedelta(days=365), timedelta(days=30)
"""Of a generated certificate."""
SERVER, CLIENTS = "server", "clients"
"""Names of Envoy's secrets: the gateway's certificate, and the authorities of clients' certificates."""


@dataclass(frozen=True)
class Credentials:
    chain: str
    """PEM, the gateway's own certificate first."""
    key: str = field(repr=False)
    """PEM, without a password."""
    client_ca: str | None = None

    @property
    def ends(self) -> datetime:
        return x509.load_pem_x509_certificate(self.chain.encode()).not_valid_after_utc

    def secrets(self) -> dict[str, dict[str, Any]]:
        """Envoy's Secret resources, by name."""
        found: dict[str, dict[str, Any]] = {
            SERVER: {
                "tls_certificate": {
                    "certificate_chain": {"inline_string": self.chain},
                    "private_key": {"inline_string": self.key},
                }
            }
        }
        if self.client_ca is not None:
            found[CLIENTS] = {"validation_context": {"trusted_ca": {"inline_string": self.client_ca}}}
        return {name: {"name": name, **secret} for name, secret in found.items()}


class TlsFiles:
    """The files with a gateway's credentials."""

    def __init__(self, config: GatewayConfig, files: Workspace) -> None:
        tls, secrets = config.tls, files.api_key.parent
        self._is_generated = tls.certificate is None
        self.certificate = tls.certificate or secrets / "gateway.crt"
        self._key = tls.private_key or secrets / "gateway.key"
        self._client_ca = tls.client_ca
        self._names = (socket.gethostname(), *LOOPBACK_HOSTS, config.host)
        self._seen: tuple[int, ...] = ()
        self._ends = datetime.max.replace(tzinfo=UTC)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The names of `Credentials.secrets`."""
        return (SERVER,) if self._client_ca is None else (SERVER, CLIENTS)

    def is_due(self, now: datetime) -> bool:
        """Whether the files have changed since `read`, or a generated certificate ends soon.

        A configured certificate that ends soon is not due: to read it again would change nothing.
        """
        return now > self._ends - RENEW_BEFORE or self._changes() != self._seen

    def read(self, now: datetime) -> Credentials:
        """Read the files. A generated pair is made when it is missing, and again a month before it ends.

        Raises ServingError, with the setting's name, for files that do not belong together or are not PEM.
        """
        self._seen = self._changes()  # files that cannot be used are not due again until they change
        credentials = self._read(now)
        self._seen = self._changes()
        if self._is_generated:
            self._ends = credentials.ends
        return credentials

    def _read(self, now: datetime) -> Credentials:
        if self._is_generated and self._must_generate(now):
            chain, key = generated_pair([name for name in self._names if name not in ALL_INTERFACES], now)
            replace_privately(self._key, key)
            write_atomically(self.certificate, chain)
        chain = _text(self.certificate, "gateway.tls.certificate")
        key = read_private(self._key, "gateway's private key", ServingError)
        client_ca = None if self._client_ca is None else _text(self._client_ca, "gateway.tls.client_ca")
        _check(chain, key, client_ca, self.certificate)
        return Credentials(chain, key, client_ca)

    def _changes(self) -> tuple[int, ...]:
        """A value that differs after each change of a file."""
        files = (self.certificate, self._key, *([] if self._client_ca is None else [self._client_ca]))
        return tuple(file.stat().st_ctime_ns if file.exists() else 0 for file in files)

    def _must_generate(self, now: datetime) -> bool:
        try:
            present = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except (FileNotFoundError, ValueError):
            return True
        return not self._key.exists() or now > present.not_valid_after_utc - RENEW_BEFORE


def generated_pair(names: Sequence[str], now: datetime) -> tuple[str, str]:
    """Return a self-signed certificate for these names and addresses, and its private key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "churn gateway")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([_general(one) for one in dict.fromkeys(names)]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(key, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), pem.decode()


def own_client(server: Mapping[str, Any]) -> ssl.SSLContext | bool:
    """How this workspace's client verifies a server that `serving.client.running` describes.

    It accepts exactly the certificate in the file, for every name. True when the server has no TLS. Raises
    ServingError when a file cannot be read.
    """
    if not server.get("tls_certificate"):
        return True
    chain = _text(Path(server["tls_certificate"]), "gateway.tls.certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    first = x509.load_pem_x509_certificate(chain.encode())
    context.load_verify_locations(cadata=first.public_bytes(Encoding.DER))
    if server.get("tls_client_certificate"):
        try:
            context.load_cert_chain(server["tls_client_certificate"], server["tls_client_key"])
        except (OSError, ssl.SSLError) as error:
            raise ServingError(f"gateway.tls.client_certificate: {error}") from None
    return context


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _text(file: Path, setting: str) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ServingError(
            f"{setting}: {file} cannot be read ({type(error).__name__}); give a PEM file"
        ) from None


def _check(chain: str, key: str, client_ca: str | None, file: Path) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(chain.encode())
        private = load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError):
        raise ServingError(f"{file}: certificate or key is not PEM without a password; replace it") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise ServingError(f"{file}: gateway.tls.private_key is not the key of this certificate")
    try:
        if client_ca is not None:
            x509.load_pem_x509_certificates(client_ca.encode())
    except ValueError:
        raise ServingError("gateway.tls.client_ca: not PEM certificates; replace it") from None
