"""The feature services that are needed: the configured one, and those of the models in use.

A model reads the service that it was trained with. Its archive contains the whole spec, so a service stays
online as long as a model needs it, although the settings describe another one by then. In use are the stable
archive, a canary, the champion of the registry, and the archive to which a rollback returns; the last one
only while its service is registered, so that a person can give up the way back (`churn features prune`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.errors import ChurnError, FeatureError, TrainingError
from core.workspace import ServiceWorkspace, Workspace
from features.build import read_feature_manifest
from features.spec import FeaturesConfig, columns_read, spec_of
from pipelines.archives import archive_of_version, archive_with
from pipelines.context import Stages
from pipelines.in_use import Use, in_use
from training.config import DecisionConfig, ValueColumn

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Service:
    """A feature service with the files of its features."""

    spec: FeaturesConfig
    files: Workspace
    uses: tuple[Use, ...] = ()
    """The models that read it. Empty for the configured one, which is always needed."""

    @property
    def name(self) -> str:
        return self.spec.service

    @property
    def needed_by(self) -> str:
        return ", ".join(map(str, self.uses))


def needed_services(
    settings: Stages, files: Workspace | None = None, progress: Progress = lambda message: None
) -> tuple[Service, ...]:
    """The configured service first, then the others that models in use need, by name.

    `files`: the workspace of the configured service's features (default: that of the settings). An archive in
    use that is lost or not trusted cannot serve again, so its service is left out, with a message. Raises
    FeatureError where the configured spec would replace the service or a view of a model in use, RolloutError
    when the database of rollouts cannot be reached, TrainingError when an archive is not on this machine and
    the registry cannot be reached.
    """
    return _needed(settings, files or settings.files, in_use(settings), progress)


def columns_read_by(settings: Stages, files: Workspace | None = None) -> frozenset[str]:
    """The source's columns that the features of all needed services read."""
    needed = needed_services(settings, files)
    return frozenset(name for one in needed for name in columns_read(one.spec, settings.data.shape))


def service_of(settings: Stages, contract: Mapping[str, object]) -> Service:
    """The service of an archive's spec, with the features that were built for it, if any were: under these
    settings, or under others that are not in force now."""
    spec = spec_of(contract, settings.features)
    places = (settings.files, ServiceWorkspace(settings.files.root, spec.service))
    built = [place for place in places if _is_built(place, spec)]
    unbuilt = places[0] if spec is settings.features else places[1]
    return Service(spec, built[0] if built else unbuilt)


def service_of_version(settings: Stages, version: str) -> Service:
    """The service that a model version reads; the configured one where its archive is not found."""
    configured = Service(settings.features, settings.files)
    if not version:
        return configured
    try:
        return service_of(settings, archive_of_version(settings, version).spec)
    except ChurnError:
        return configured


def decision_for(settings: Stages, spec: FeaturesConfig) -> DecisionConfig:
    """The config of the decision, with the default value for all customers where `spec` does not have the
    feature that gives a value of their own."""
    value = settings.decision.customer_value
    if not isinstance(value, ValueColumn) or value.column in spec.numeric:
        return settings.decision
    return settings.decision.model_copy(update={"customer_value": value.default})


def _is_built(files: Workspace, spec: FeaturesConfig) -> bool:
    return files.feature_manifest.is_file() and read_feature_manifest(files)["spec_digest"] == spec.digest()


def _needed(settings: Stages, files: Workspace, uses: list[Use], progress: Progress) -> tuple[Service, ...]:
    configured = Service(settings.features, files)
    readers: dict[str, tuple[FeaturesConfig, list[Use]]] = {}
    for use in uses:
        try:
            spec = spec_of(archive_with(settings, use.sha256, use.archive).spec, settings.features)
        except TrainingError:
            raise  # the registry, which may have the archive, cannot be read
        except ChurnError as error:
            progress(f"{use}: its features are not updated: {error}")
            continue
        if spec is not settings.features:
            readers.setdefault(spec.digest(), (spec, []))[1].append(use)
    if not readers:
        return (configured,)
    online = registered(settings)
    others = [
        Service(spec, ServiceWorkspace(files.root, spec.service), tuple(mine))
        for digest, (spec, mine) in readers.items()
        if online.get(spec.service) == digest or not all(use.can_be_given_up for use in mine)
    ]
    others = [one for one in others if not _is_replaced(one, online, configured)]
    _refuse_clashes(configured, others)
    return (configured, *sorted(others, key=lambda one: one.name))


def registered(settings: Stages) -> dict[str, str]:
    """The services of this workspace in the feature store -> the digests of their specs."""
    from features.store import registered_services

    return registered_services(settings.features, settings.files)


def _is_replaced(other: Service, online: Mapping[str, str], configured: Service) -> bool:
    """Whether the configured spec is in the store under the name of `other` already, as after a change that a
    release without this protection let pass."""
    return other.name == configured.name and online.get(other.name) == configured.spec.digest()


def _refuse_clashes(configured: Service, others: list[Service]) -> None:
    for other in others:
        if other.name == configured.name:
            raise FeatureError(
                f"features.service {other.name}: {_difference(other.spec, configured.spec)} changed, and"
                f" {other.needed_by} reads the spec before; give features.service a new name, such as"
                f" {next_name(other.name)}"
            )
        for key in ("view", "derived_view"):
            name = getattr(configured.spec, key)
            if name in (other.spec.view, other.spec.derived_view):
                raise FeatureError(
                    f"features.{key} {name}: is of service {other.name}, which {other.needed_by} reads; end"
                    f" features.service in a number, such as {next_name(other.name)}, or give"
                    f" features.{key} another name"
                )


def next_name(service: str) -> str:
    """The name of a service with the next number: churn_v2 after churn_v1."""
    number = re.search(r"^(.*_v)(\d+)$", service)
    return f"{number[1]}{int(number[2]) + 1}" if number else f"{service}_v2"


def _difference(before: FeaturesConfig, after: FeaturesConfig) -> str:
    """The keys of the spec that differ, in words: names of features for features."""
    old, new = before.contract(), after.contract()
    found = [f"features.{key}" for key in new if key not in ("features", "derived") and old[key] != new[key]]
    for part in ("features", "derived"):
        mine, theirs = ({one["name"]: one for one in spec[part]} for spec in (old, new))
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        found += [f"feature {name}" for name in names]
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
