"""An archive is used only if a trusted key has signed exactly its bytes."""

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ArchiveError, ConfigError, GateFailure
from core.workspace import Workspace
from handlers.bundle import digest_of_spec
from training.archive.mar import open_checked
from training.archive.signing import load_signing_key, read_signers, sign, signature_file, trust_line
from training.archive.verify import verify_archive

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
TRUSTED = {KEY.public_key().public_bytes_raw(): "release"}
VARIABLE = "CHURN_SIGNING_KEY_OF_A_TEST"


SPEC = {"features": [{"name": "spend", "sql": "sum(amount)", "description": "amount spent"}]}


def archive(
    path: Path, gates: object = None, spec_digest: str = digest_of_spec(SPEC), **entries: bytes
) -> Path:
    """A small archive whose parts fit together."""
    parts = {"model.pt2": b"a program", "sbom.json": b"{}", **entries}
    bundle = {
        "schema_version": 1,
        "model_version": "abc",
        "program": {"file": "model.pt2", "sha256": hashlib.sha256(b"a program").hexdigest()},
        "sbom_sha256": hashlib.sha256(b"{}").hexdigest(),
        "spec": SPEC,
        "spec_digest": spec_digest,
        "gates": {"passed": True, "digest": "0" * 64, "overrides": []} if gates is None else gates,
    }
    parts.setdefault("bundle.json", json.dumps(bundle).encode())
    parts["MAR-INF/MANIFEST.json"] = json.dumps({"model": {"modelVersion": "abc"}}).encode()
    with zipfile.ZipFile(path, "w") as content:
        for name, part in parts.items():
            content.writestr(name, part)
    return path


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    made = archive(tmp_path / "churn-abc.mar")
    sign(made, KEY)
    return made


def test_a_signed_archive_verifies_and_is_identified(signed: Path, tmp_path: Path) -> None:
    verified = verify_archive(signed, TRUSTED)

    assert (verified.signer, verified.version) == ("release", "abc")
    assert [name for name, _ in verified.checks] == [
        "signature", "sha256", "entries", "version", "feature spec", "model.pt2", "sbom.json", "gates",
    ]  # fmt: skip
    assert (verified.unpack(tmp_path / "model") / "model.pt2").read_bytes() == b"a program"


def test_the_spec_of_an_earlier_release_verifies_and_another_one_does_not(tmp_path: Path) -> None:
    """Its digest covers the descriptions too; what is compared with it later is the present one."""
    earlier = hashlib.sha256(json.dumps(SPEC, sort_keys=True).encode()).hexdigest()
    assert earlier != digest_of_spec(SPEC)
    for name, digest in (("churn-earlier.mar", earlier), ("churn-other.mar", "0" * 64)):
        sign(archive(tmp_path / name, spec_digest=digest), KEY)
    assert verify_archive(tmp_path / "churn-earlier.mar", TRUSTED).spec_digest == digest_of_spec(SPEC)
    with pytest.raises(ArchiveError, match="not the one that spec_digest names"):
        verify_archive(tmp_path / "churn-other.mar", TRUSTED)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_byte_of_archive_or_signature_can_change(signed: Path, data: st.DataObject) -> None:
    for file in (signed, signature_file(signed)):
        original = file.read_bytes()
        position = data.draw(st.integers(0, len(original) - 1))
        changed = original[position] ^ data.draw(st.integers(1, 255))
        file.write_bytes(original[:position] + bytes([changed]) + original[position + 1 :])
        try:
            with pytest.raises(ArchiveError):
                verify_archive(signed, TRUSTED)
        finally:
            file.write_bytes(original)


def test_a_truncated_archive_is_refused(signed: Path) -> None:
    signed.write_bytes(signed.read_bytes()[:-10])
    with pytest.raises(ArchiveError, match="is not the signed"):
        verify_archive(signed, TRUSTED)


def test_an_unsigned_archive_is_refused(signed: Path) -> None:
    signature_file(signed).unlink()
    with pytest.raises(ArchiveError, match=r"unsigned: churn-abc\.mar\.sig") as caught:
        verify_archive(signed, TRUSTED)
    assert caught.value.exit_code == 2


def test_the_signature_of_an_unknown_key_is_refused(signed: Path) -> None:
    sign(signed, OTHER)
    with pytest.raises(ArchiveError, match="unknown key"):
        verify_archive(signed, TRUSTED)


def test_the_signature_of_another_archive_is_refused(signed: Path, tmp_path: Path) -> None:
    other = archive(tmp_path / "other.mar", entries=b"more")
    sign(other, KEY)
    signature_file(signed).write_bytes(signature_file(other).read_bytes())
    with pytest.raises(ArchiveError, match="the signature is of another one"):
        verify_archive(signed, TRUSTED)


def test_a_trusted_name_on_another_keys_signature_is_refused(signed: Path) -> None:
    ours = json.loads(signature_file(signed).read_text())
    sign(signed, OTHER)
    theirs = json.loads(signature_file(signed).read_text())
    forged = {**theirs, "key": ours["key"]}
    signature_file(signed).write_text(json.dumps(forged, indent=1, sort_keys=True) + "\n")
    with pytest.raises(ArchiveError, match="not a signature by the key"):
        verify_archive(signed, TRUSTED)


def test_another_archive_than_the_recorded_one_is_refused(signed: Path) -> None:
    with pytest.raises(ArchiveError, match="is not the recorded 000000000000"):
        verify_archive(signed, TRUSTED, sha256="0" * 64)


def test_a_signed_archive_of_a_refused_model_is_refused_with_the_gates_exit_code(tmp_path: Path) -> None:
    made = archive(tmp_path / "m.mar", gates={"passed": False, "digest": "0" * 64})
    sign(made, KEY)
    with pytest.raises(GateFailure) as caught:
        verify_archive(made, TRUSTED)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("changed", [{"model.pt2": b"another"}, {"sbom.json": b"[]"}, {"bundle.json": b"{}"}])
def test_parts_that_the_bundle_does_not_name_are_refused(tmp_path: Path, changed: dict[str, bytes]) -> None:
    made = archive(tmp_path / "m.mar", **changed)
    sign(made, KEY)
    with pytest.raises(ArchiveError, match=next(iter(changed))):
        verify_archive(made, TRUSTED)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "handlers/../../x", "..\\x", "C:x"])
def test_an_entry_that_would_land_outside_is_refused_even_when_signed(tmp_path: Path, name: str) -> None:
    made = archive(tmp_path / "m.mar", **{name: b"x"})
    sign(made, KEY)
    with pytest.raises(ArchiveError, match="points outside the archive"):
        verify_archive(made, TRUSTED)
    assert not list(tmp_path.parent.glob("x"))


def test_a_link_a_double_and_rubbish_are_refused() -> None:
    link, double = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(link, "w") as content:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(info, "/etc/passwd")
    with zipfile.ZipFile(double, "w") as content, pytest.warns(UserWarning, match="Duplicate"):
        content.writestr("a", "1")
        content.writestr("a", "2")
    for data, why in ((link.getvalue(), "link"), (double.getvalue(), "twice"), (b"PK rubbish", "not a read")):
        with pytest.raises(ArchiveError, match=why):
            open_checked(data, "m.mar")


def test_a_workspace_makes_its_key_once_and_trusts_it(tmp_path: Path) -> None:
    files = Workspace(tmp_path)
    one, again = load_signing_key(VARIABLE, files), load_signing_key(VARIABLE, files)

    assert one.private_bytes_raw() == again.private_bytes_raw()
    assert stat.S_IMODE(files.signing_key.stat().st_mode) == 0o600
    assert read_signers(files.trusted_signers) == {one.public_key().public_bytes_raw(): "this-workspace"}


def test_a_workspace_with_a_list_of_signers_does_not_add_its_own_key(tmp_path: Path) -> None:
    files = Workspace(tmp_path)
    files.trusted_signers.write_text(trust_line("release", KEY.public_key()))
    load_signing_key(VARIABLE, files)
    assert read_signers(files.trusted_signers) == TRUSTED


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    files = Workspace(tmp_path)
    load_signing_key(VARIABLE, files)
    files.signing_key.chmod(0o640)
    with pytest.raises(ConfigError, match="open to others"):
        load_signing_key(VARIABLE, files)


def test_the_key_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    monkeypatch.setitem(os.environ, VARIABLE, pem)
    assert load_signing_key(VARIABLE, Workspace(tmp_path)).private_bytes_raw() == bytes([1]) * 32
    assert not Workspace(tmp_path).signing_key.exists()
    monkeypatch.setitem(os.environ, VARIABLE, "secret nonsense")
    with pytest.raises(ConfigError, match="not an Ed25519 private key") as caught:
        load_signing_key(VARIABLE, Workspace(tmp_path))
    assert "nonsense" not in str(caught.value)


@pytest.mark.parametrize("text", ["release", "release AAAA", "a b c", "release !!!!"])
def test_a_line_that_is_not_a_signer_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "trusted"
    file.write_text(f"# ours\n{text}\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_signers(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"key": "', '"key": "é'),
        lambda text: text.replace('"signature": "', '"signature": "\\ud800'),
        lambda text: "[" * 4000,
        lambda text: '{"sha256":' * 400 + "1" + "}" * 400,
        lambda text: "1" * 4090,
        lambda text: text.replace('"key": "', '"key": 7, "was": "'),
    ],
    ids=["not ASCII", "half a surrogate", "4,000 brackets", "400 objects", "a long number", "not a text"],
)
def test_a_damaged_signature_is_refused_in_one_line(signed: Path, change: Callable[[str], str]) -> None:
    """It is stored beside the archive in a bucket: no content of it may end a server that reloads."""
    file = signature_file(signed)
    file.write_text(change(file.read_text()))
    with pytest.raises(ArchiveError) as refused:
        verify_archive(signed, TRUSTED)
    assert "\n" not in str(refused.value)
