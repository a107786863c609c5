"""TLS at the gateway: on for other machines; configured or generated files; certificates of clients."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from churn.settings import load_settings
from core.errors import ServingError
from serving.client import key_for, predict, running
from serving.config import GatewayConfig, ServingConfig, Tls
from serving.gateway.process import Gateway
from serving.gateway.tls import generated_pair, own_client
from support.served_bundle import ServedBundle, files_of
from support.servers.stack import supervisor_of
from support.waits import within

NOW = datetime.now(UTC)
ON = Tls(enabled=True)
LIVE = "/v2/health/live"


def gateway(folder: Path, tls: Tls = ON) -> Gateway:
    return Gateway(GatewayConfig(tls=tls), ServingConfig(), files_of(folder))


def trusting(ours: Gateway, **client: str) -> httpx.Client:
    context = own_client({"tls_certificate": str(ours.certificate), **client})
    return httpx.Client(base_url=ours.url, verify=context, trust_env=False)


def pem_files(folder: Path, name: str, chain: str, key: str) -> tuple[Path, Path]:
    certificate, private_key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_text(chain)
    private_key.touch(0o600)
    private_key.write_text(key)
    return certificate, private_key


class Authority:
    """A small CA that signs certificates of clients."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.pem = _signed(self._name, self._name, self._key, self._key, ca=True)[0]

    def client(self, name: str) -> tuple[str, str]:
        return _signed(_name(name), self._name, ec.generate_private_key(ec.SECP256R1()), self._key, ca=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    ca: bool,
) -> tuple[str, str]:
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        .sign(by, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return made.public_bytes(Encoding.PEM).decode(), pem


def test_tls_is_on_when_other_machines_reach_the_gateway() -> None:
    assert GatewayConfig(host="0.0.0.0").uses_tls  # noqa: S104
    assert GatewayConfig(host="192.0.2.1").uses_tls
    assert not GatewayConfig().uses_tls
    assert not GatewayConfig(host="192.0.2.1", tls=Tls(enabled=False)).uses_tls
    assert not load_settings().gateway.uses_tls
    with pytest.raises(ValueError, match="give both or neither"):
        Tls(certificate=Path("a.crt"))
    with pytest.raises(ValueError, match="turns TLS off"):
        Tls(enabled=False, client_ca=Path("ca.crt"))


def test_a_pair_is_generated_for_local_use_and_used_again(tmp_path: Path) -> None:
    with gateway(tmp_path) as ours:
        assert ours.url.startswith("https://127.0.0.1:")
        with trusting(ours) as client:
            assert client.get(LIVE).json() == {"live": True}
        with pytest.raises(httpx.TransportError):
            httpx.get(ours.url.replace("https", "http") + LIVE, trust_env=False)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(ours.url + LIVE, trust_env=False)
        assert ours.certificate is not None
        first = ours.certificate.read_text()
        assert ours.certificate.with_name("gateway.key").stat().st_mode & 0o777 == 0o600
        # clients that verify names use the file
        strict = ssl.create_default_context(cafile=str(ours.certificate))
        for name in ("127.0.0.1", "localhost"):
            port = urlsplit(ours.url).port
            answer = httpx.get(f"https://{name}:{port}{LIVE}", verify=strict, trust_env=False)
            assert answer.status_code == 200
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx.get(ours.url + LIVE, verify=old, trust_env=False)
    with gateway(tmp_path) as again:
        assert again.certificate is not None and again.certificate.read_text() == first


def test_grpc_is_on_the_same_port(tmp_path: Path) -> None:
    with gateway(tmp_path) as ours:
        assert ours.certificate is not None
        trusted = grpc.ssl_channel_credentials(ours.certificate.read_bytes())
        with grpc.secure_channel(ours.url.removeprefix("https://"), trusted) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED, (
            "the handshake is done; a key is not shown"
        )


def test_certificates_of_clients_are_required(tmp_path: Path) -> None:
    ours_ca, other_ca = Authority("ours"), Authority("another")
    ca = tmp_path / "ca.crt"
    ca.write_text(ours_ca.pem)
    good = pem_files(tmp_path, "good", *ours_ca.client("good"))
    stranger = pem_files(tmp_path, "stranger", *other_ca.client("stranger"))
    with gateway(tmp_path, Tls(enabled=True, client_ca=ca)) as ours:

        def status(files: Sequence[Path]) -> int:
            shown = dict(zip(("tls_client_certificate", "tls_client_key"), map(str, files), strict=False))
            with trusting(ours, **shown) as client:
                return client.get(LIVE).status_code

        assert status(good) == 200
        for files in (stranger, ()):
            with pytest.raises(httpx.TransportError):
                status(files)


def test_new_files_are_applied_without_a_restart_and_bad_ones_are_not(tmp_path: Path) -> None:
    first, second = generated_pair(["127.0.0.1"], NOW), generated_pair(["127.0.0.1"], NOW)
    certificate, key = pem_files(tmp_path, "given", *first)
    with gateway(tmp_path, Tls(enabled=True, certificate=certificate, private_key=key)) as ours:
        pid = ours.pid

        def shown() -> str:
            place = urlsplit(ours.url)
            return ssl.get_server_certificate((str(place.hostname), int(place.port or 0))).strip()

        assert shown() == first[0].strip()
        assert not ours.refresh_tls(NOW)
        certificate.write_text(second[0])
        with pytest.raises(
            ServingError, match=r"gateway\.tls\.private_key is not the key of this certificate"
        ):
            ours.refresh_tls(NOW)
        assert not ours.refresh_tls(NOW), "the error is raised once, until the files change"
        assert shown() == first[0].strip()
        key.write_text(second[1])
        assert ours.refresh_tls(NOW)
        within(5, lambda: shown() == second[0].strip())
        assert ours.pid == pid


def test_the_pair_is_generated_again_before_it_ends(tmp_path: Path) -> None:
    with gateway(tmp_path) as ours:
        assert ours.certificate is not None
        before = ours.certificate.read_text()
        assert not ours.refresh_tls(NOW + timedelta(days=330))
        assert ours.refresh_tls(NOW + timedelta(days=340))
        assert ours.certificate.read_text() != before


@pytest.mark.parametrize(
    ("mode", "content", "complaint"),
    [(0o644, None, "chmod 600"), (0o600, "nonsense", "not PEM"), (0o600, "", "not PEM")],
)
def test_a_bad_key_file_is_named(tmp_path: Path, mode: int, content: str | None, complaint: str) -> None:
    certificate, key = pem_files(tmp_path, "given", *generated_pair(["127.0.0.1"], NOW))
    if content is not None:
        key.write_text(content)
    key.chmod(mode)
    with pytest.raises(ServingError, match=complaint):
        gateway(tmp_path, Tls(enabled=True, certificate=certificate, private_key=key)).start()


def test_the_workspace_s_own_client_uses_tls(bundle: ServedBundle, tmp_path: Path) -> None:
    made = supervisor_of(bundle, tmp_path, GatewayConfig(tls=ON))
    with made.supervisor:
        record = running(made.files)
        assert record["inference"].startswith("https://")
        [answer] = predict(
            record["inference"], record["model"], [1], key_for(record, made.files), verify=own_client(record)
        )
        assert 0 < answer["churn_probability"] < 1
