"""`churn features prune`: removes the feature services that no model in use needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import ChurnError, FeatureError
from pipelines.archives import archive_with
from pipelines.context import Stages
from pipelines.in_use import Use, in_use
from pipelines.services import registered
from training.archive.verify import Verified


@dataclass(frozen=True)
class Plan:
    """What becomes of the services in the feature store."""

    removed: tuple[str, ...]
    needed: Mapping[str, str]
    """Service -> what needs it."""


def plan_of(settings: Stages, service: str | None = None, give_up: bool = False) -> Plan:
    """All services that nothing needs, or only `service`. With `give_up`, an archive to which only a rollback
    would return needs none.

    Raises FeatureError for a `service` that is needed or not there, and where an archive in use cannot be
    read, since its service is then unknown.
    """
    readers: dict[tuple[str, str], list[Use]] = {}
    for use in in_use(settings, strict=True):
        found = _read(settings, use)
        readers.setdefault((str(found.spec["service"]), found.spec_digest), []).append(use)
    online = registered(settings)
    uses = {name: readers.get((name, digest), []) for name, digest in online.items()}
    return decide(settings.features.service, uses, service, give_up)


def decide(
    configured: str, uses: Mapping[str, Sequence[Use]], service: str | None = None, give_up: bool = False
) -> Plan:
    """As `plan_of`, for the services in the store and the models that read each."""
    needed: dict[str, str] = {}
    for name, models in uses.items():
        reading = [one for one in models if not (give_up and one.can_be_given_up)]
        why = (["the settings configure it"] if name == configured else []) + [
            f"{one} reads it" for one in reading
        ]
        if why:
            needed[name] = "; ".join(why)
    if service is None:
        return Plan(tuple(sorted(uses.keys() - needed.keys())), needed)
    if service not in uses:
        known = ", ".join(sorted(uses)) or "none"
        raise FeatureError(f"SERVICE {service}: is not in the feature store; there are: {known}")
    if service in needed:
        only_before = service != configured and all(one.can_be_given_up for one in uses[service])
        remedy = (
            "give up the way back with --give-up-rollback" if only_before else "roll out another model first"
        )
        raise FeatureError(f"SERVICE {service}: {needed[service]}; {remedy}")
    return Plan((service,), needed)


def prune(settings: Stages, plan: Plan) -> dict[str, int]:
    """Remove the services of the plan -> the number of customers whose values were removed."""
    from features.prune import remove_service, remove_snapshots

    spec, files = settings.features, settings.files
    removed = {name: remove_service(spec, files, name) for name in plan.removed}
    folders = [place.name for place in files.services.iterdir()] if files.services.is_dir() else []
    for name in folders:
        if name not in plan.needed or name == spec.service:
            remove_snapshots(files, name)
    return removed


def _read(settings: Stages, use: Use) -> Verified:
    try:
        return archive_with(settings, use.sha256, use.archive)
    except ChurnError as error:
        raise FeatureError(
            f"{use}: its archive cannot be read, so it is not known which features it needs ({error});"
            " restore the archive, and prune after that"
        ) from None
