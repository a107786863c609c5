"""Only what was judged, signed and reported on is deployed; and the store holds it whole, once, for good."""

import errno
import hashlib
import json
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from churn.cli import main
from churn.settings import Settings, load_settings
from core.errors import ChurnError, ConfigError, PackagingError
from core.workspace import write_atomically
from handlers.bundle import digest_of_spec
from pipelines.context import Context
from pipelines.deploy import Deployed, deploy
from pipelines.model_store import ModelStore
from support.servers.object_store import ObjectStore
from training.archive.signing import SUFFIX, load_signing_key, sign, signature_file
from training.archive.verify import verify_archive
from training.gates import GateReport, Verdict, write_report

PROGRAM = b"a program " * 10_000
VERSION = "0123456789ab"
HELD = Verdict("floors.auroc", True, 0.85, 0.8, "auroc 0.85 is at least 0.8")
FELL = Verdict("floors.auroc", False, 0.70, 0.8, "auroc 0.70 is below 0.8")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A workspace with a report that passed and the signed archive that it is about."""
    made = load_settings(overrides=[f"workspace={tmp_path / 'ws'}"])
    report = report_of(PROGRAM, HELD)
    write_report(report, made.files)
    pack(made, {"passed": True, "digest": report.digest, "overrides": []})
    return made


def report_of(program: bytes, *verdicts: Verdict) -> GateReport:
    return GateReport("default", hashlib.sha256(program).hexdigest(), 1000, verdicts)


def pack(
    settings: Settings,
    gates: dict[str, Any],
    program: bytes = PROGRAM,
    name: str = "churn",
    spec: dict[str, Any] | None = None,
    online: str = "redis",
) -> Path:
    """A small archive whose parts fit together, signed, and noted as the newest. By default its stores are
    those that a cluster can read."""
    spec = spec or {"features": []}
    bundle = {
        "schema_version": 1,
        "model_version": VERSION,
        "program": {"file": "model.pt2", "sha256": hashlib.sha256(program).hexdigest()},
        "sbom_sha256": hashlib.sha256(b"{}").hexdigest(),
        "spec": spec,
        "spec_digest": digest_of_spec(spec),
        "gates": gates,
    }
    archive = settings.files.model_store / f"{name}-{VERSION}.mar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    manifest = {"model": {"modelVersion": VERSION}}
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("model.pt2", program)
        content.writestr("sbom.json", b"{}")
        stores = {"online_store": {"type": online}, "registry": {"registry_type": "sql"}}
        content.writestr("feature_store.yaml", json.dumps(stores))
        content.writestr("bundle.json", json.dumps(bundle))
        content.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    sign(archive, load_signing_key(settings.training.signing_key_env, settings.files))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    record = {"path": str(archive), "sha256": sha256, "version": VERSION}
    write_atomically(settings.files.archive_record, json.dumps(record))
    return archive


def context_of(settings: Settings, store: str | None = None, target: str = "envoy") -> Context:
    rollout = settings.rollout.model_copy(update={"store": store, "target": target})
    changed = settings.model_copy(update={"rollout": rollout})
    return Context(changed, datetime(1998, 7, 1, tzinfo=UTC), lambda message: None)


def deployed(settings: Settings, store: str | None = None, target: str = "envoy", **given: Any) -> Deployed:
    return deploy(context_of(settings, store, target), **given)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# What must not be deployed


def refusal(settings: Settings, **given: Any) -> ChurnError:
    """Why it was refused; nothing was written."""
    before = everything(settings.files.root)
    with pytest.raises(ChurnError) as caught:
        deployed(settings, **given)
    assert "\n" not in str(caught.value)
    assert everything(settings.files.root) == before
    return caught.value


def test_nothing_is_deployed_without_a_gate_report(settings: Settings) -> None:
    (settings.files.gate_report / "gate_report.json").unlink()
    error = refusal(settings)
    assert "no gate report" in str(error) and error.exit_code == 2

    error = refusal(settings, report=settings.files.root)  # a folder
    assert "no gate report" in str(error) and error.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"verdicts": [{}]}'])
def test_what_is_no_report_is_none(settings: Settings, content: bytes) -> None:
    (settings.files.gate_report / "gate_report.json").write_bytes(content)
    error = refusal(settings)
    assert "no gate report" in str(error) and error.exit_code == 2


def test_a_model_that_failed_is_not_deployed(settings: Settings) -> None:
    write_report(report_of(PROGRAM, FELL), settings.files)
    error = refusal(settings)
    assert "auroc 0.70 is below 0.8" in str(error) and error.exit_code == 3


def test_a_report_without_verdicts_that_states_passed_has_not_passed(settings: Settings) -> None:
    text = report_of(PROGRAM, FELL).to_json().replace('"passed": false', '"passed": true', 1)
    assert json.loads(text)["passed"] is True
    (settings.files.gate_report / "gate_report.json").write_text(text)
    assert refusal(settings).exit_code == 3


def test_a_report_about_another_model_is_refused(settings: Settings) -> None:
    write_report(report_of(b"another program", HELD), settings.files)
    error = refusal(settings)
    assert "about another archive" in str(error) and error.exit_code == 3


def test_a_report_that_was_touched_after_the_signature_is_refused(settings: Settings) -> None:
    file = settings.files.gate_report / "gate_report.json"
    file.write_text(file.read_text().replace("0.85", "0.95"))
    error = refusal(settings)
    assert "unsigned" in str(error) and error.exit_code == 2


def test_an_archive_that_names_no_report_is_refused(settings: Settings) -> None:
    pack(settings, {})
    error = refusal(settings)
    assert "names no gate report" in str(error) and error.exit_code == 2


def test_an_archive_whose_bundle_states_a_failure_is_refused(settings: Settings) -> None:
    digest = report_of(PROGRAM, HELD).digest
    pack(settings, {"passed": False, "digest": digest})
    assert refusal(settings).exit_code == 3


def test_an_unsigned_archive_is_refused(settings: Settings) -> None:
    archive = next(settings.files.model_store.glob("*.mar"))
    signature_file(archive).unlink()
    error = refusal(settings)
    assert "unsigned" in str(error) and error.exit_code == 2


def test_an_archive_of_an_unknown_signer_is_refused(settings: Settings) -> None:
    settings.files.trusted_signers.write_text("")
    error = refusal(settings)
    assert "unknown key" in str(error) and error.exit_code == 2


def test_another_archive_than_the_recorded_one_is_refused(settings: Settings) -> None:
    digest = report_of(PROGRAM, HELD).digest
    record = settings.files.archive_record.read_text()
    pack(settings, {"passed": True, "digest": digest, "overrides": [], "run": "again"})
    settings.files.archive_record.write_text(record)
    error = refusal(settings)
    assert "is not the recorded" in str(error) and error.exit_code == 2


def test_the_command_says_so_in_one_line(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["deploy", "--set", f"workspace={settings.files.root}"]
    write_report(report_of(PROGRAM, FELL), settings.files)
    assert main(words) == 3
    assert "churn: the gates refused this model: auroc 0.70 is below 0.8" in capfd.readouterr().err
    (settings.files.gate_report / "gate_report.json").unlink()
    assert main(words) == 2
    assert not (settings.files.root / "rollout.db").exists()


# What the store holds then


def test_what_was_deployed_verifies_where_it_lies(settings: Settings, tmp_path: Path) -> None:
    done = deployed(settings, f"file://{tmp_path / 'store'}")

    assert done.fresh and done.candidate.version == VERSION
    assert done.candidate.path == Path(done.uri) / "model-store" / "churn.mar"
    trusted = {load_signing_key("unset", settings.files).public_key().public_bytes_raw(): "us"}
    assert verify_archive(done.candidate.path, trusted, done.candidate.sha256).version == VERSION
    held = everything(tmp_path / "store")
    assert {path.split("/", 1)[1] for path in held} == {
        "model-store/churn.mar",
        f"model-store/churn.mar{SUFFIX}",
        "config/config.properties",
        "gate_report.json",
    }
    report = held[f"{Path(done.uri).name}/gate_report.json"]
    assert hashlib.sha256(report).hexdigest() == report_of(PROGRAM, HELD).digest


def test_without_a_store_it_is_the_workspace_s(settings: Settings) -> None:
    assert deployed(settings).candidate.path.is_relative_to(settings.files.model_store)


def test_twice_is_as_good_as_once(settings: Settings, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    first = deployed(settings, store)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*")}
    again = deployed(settings, store)

    assert (again.candidate, again.uri, again.fresh) == (first.candidate, first.uri, False)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*")} == times


def test_no_address_is_used_for_two_contents(settings: Settings, tmp_path: Path) -> None:
    """The version names the model; another run, or other sizes of the server, make another archive of it."""
    store = str(tmp_path / "store")
    first = deployed(settings, store)
    held = everything(Path(first.uri))
    serving = settings.serving.model_copy(update={"workers": 3})
    resized = deployed(settings.model_copy(update={"serving": serving}), store)
    gates = {"passed": True, "digest": report_of(PROGRAM, HELD).digest, "overrides": [], "run": "again"}
    pack(settings, gates)
    packed_again = deployed(settings, store)

    assert len({first.uri, resized.uri, packed_again.uri}) == 3
    assert all(Path(done.uri).name.startswith(VERSION) for done in (first, resized, packed_again))
    assert everything(Path(first.uri)) == held


def test_an_older_archive_goes_with_its_own_report(settings: Settings, tmp_path: Path) -> None:
    archive, own = next(settings.files.model_store.glob("*.mar")), tmp_path / "own.json"
    own.write_bytes((settings.files.gate_report / "gate_report.json").read_bytes())
    newer = report_of(b"newer", HELD)
    write_report(newer, settings.files)
    pack(settings, {"passed": True, "digest": newer.digest, "overrides": []}, b"newer", "newer")

    assert "about another archive" in str(refusal(settings, archive=archive))
    assert deployed(settings, archive=archive, report=own).candidate.version == VERSION


def test_what_somebody_changed_in_the_store_is_not_deployed(settings: Settings, tmp_path: Path) -> None:
    first = deployed(settings, str(tmp_path / "store"))
    first.candidate.path.write_bytes(b"something else")

    with pytest.raises(PackagingError, match="is not what was deployed under this name"):
        deployed(settings, str(tmp_path / "store"))
    assert first.candidate.path.read_bytes() == b"something else"


def test_a_full_store_contains_no_part_of_a_failed_write(settings: Settings, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with largest_file(1000), pytest.raises(PackagingError, match=r"File too large.*make room") as caught:
        deployed(settings, str(store))
    assert caught.value.exit_code == 1
    assert everything(store) == {} and list(store.iterdir()) == []
    assert deployed(settings, str(store)).fresh


def test_a_store_that_cannot_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PackagingError, match=r"rollout\.store: .*file/store: Not a directory"):
        deployed(settings, str(tmp_path / "file" / "store"))


def test_a_store_of_no_known_kind_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.store: s4://models: .*s4"):
        deployed(settings, "s4://models")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Stores that are not on this machine


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://models/churn"
    MemoryFileSystem.store.clear()


def test_a_cluster_loads_the_folder_and_a_machine_its_own_copy(settings: Settings, memory: str) -> None:
    cluster = deployed(settings, memory, "knative")
    assert cluster.candidate.archive == cluster.uri
    assert cluster.uri.startswith(f"{memory}/{VERSION}-")

    here = deployed(settings, memory)
    assert (here.uri, here.fresh) == (cluster.uri, False)
    assert here.candidate.path.is_relative_to(settings.files.model_store)
    with fsspec.open(f"{cluster.uri}/model-store/churn.mar", "rb") as file:
        assert file.read() == here.candidate.path.read_bytes()


@pytest.mark.parametrize("store", [None, "some/folder"])
def test_a_cluster_cannot_load_from_this_machine(settings: Settings, store: str | None) -> None:
    with pytest.raises(ConfigError, match=r"give a URI such as s3://"):
        deployed(settings, store, "standard")


class Full(MemoryFileSystem):  # type: ignore[misc]
    """Takes two files."""

    protocol = "full"
    store: ClassVar[dict[str, Any]] = {}

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **given: Any) -> None:
        if len(self.store) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().pipe_file(path, value, mode, **given)


class Rotten(MemoryFileSystem):  # type: ignore[misc]
    """Gives back other bytes than it was given."""

    protocol = "rotten"
    store: ClassVar[dict[str, Any]] = {}

    def cat_file(self, path: str, start: Any = None, end: Any = None, **given: Any) -> bytes:
        return bytes(super().cat_file(path, start, end, **given)) + b"!"


@pytest.mark.parametrize(("kind", "message"), [(Full, "No space left"), (Rotten, "returned other bytes")])
def test_a_store_that_fails_half_way_is_left_empty(kind: type[Any], message: str) -> None:
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    store = ModelStore(f"{kind.protocol}://models")
    with pytest.raises(PackagingError, match=message):
        store.put("v1", {"a": b"1", "b": b"2", "c": b"3"})
    assert kind.store == {}


def test_s3_over_the_wire(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with ObjectStore("models") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        done = deployed(settings, "s3://models/churn", "knative")
        again = deployed(settings, "s3://models/churn", "knative")
        assert done.fresh and not again.fresh and done.uri == again.uri
        key = f"churn/{done.uri.rsplit('/', 1)[1]}/model-store/churn.mar"
        assert hashlib.sha256(server.objects[key]).hexdigest() == done.candidate.sha256
        assert len(server.objects) == 4

        server.refused = ".properties"
        server.objects.clear()
        with pytest.raises(PackagingError, match=r"rollout\.store: s3://models/churn: .*make room"):
            deployed(settings, "s3://models/churn", "knative")
        assert server.objects == {}
        with pytest.raises(PackagingError, match="bucket does not exist"):
            deployed(settings, "s3://modles/churn", "knative")
