"""What the result of a step depends on besides files and code: settings, the source, the champion."""

import hashlib
from collections.abc import Callable
from typing import Any

from core.errors import TrainingError
from pipelines.context import Context
from pipelines.services import columns_read_by, needed_services


def config(*sections: str) -> Callable[[Context], Any]:
    """A function that returns these sections of the settings."""
    return lambda context: [getattr(context.settings, name).model_dump(mode="json") for name in sections]


def features(context: Context) -> list[Any]:
    """The config of the features, the services of models in use, and the moment that is replayed, if any."""
    return [*services(context), context.known_until]


def services(context: Context) -> list[Any]:
    """The config of the features, and the other services that models in use need, if any."""
    others = [(one.name, one.spec.digest()) for one in needed_services(context.settings, context.files)[1:]]
    return [*config("features")(context), *others]


def source(context: Context) -> list[Any]:
    """The config, the source's state, and which key masks it: the masked form of an empty identifier."""
    from data.mask import load_key
    from data.source.sources import state
    from handlers.identity import mask

    data = context.settings.data
    key = mask("", load_key(data, context.files))
    read = sorted(columns_read(context))
    return [*config("data")(context), state(data), key, read, context.known_until]


def columns_read(context: Context) -> frozenset[str]:
    """The source's columns that features read, for each service that is needed: only those, and the declared
    ones, enter the records."""
    return columns_read_by(context.settings, context.files)


def tuned(context: Context) -> list[Any]:
    """The configs, and which dimensions of the space are not searched because the user gave them."""
    fixed = sorted(context.settings.given & set(context.settings.tuning.space))
    return [*config("features", "model", "training", "tuning")(context), fixed]


def judged_by(context: Context) -> list[Any]:
    """The rules, and the champion that the model is compared with: another champion needs another judgement.

    A model that has become the champion is not judged again for that: it was compared with the one before.
    """
    from training.registry.model_registry import PREVIOUS, Registry

    try:
        registry = Registry(context.settings.training)
        champion = registry.champion()
        if champion is not None and champion.tags.get("program_sha256") == _program(context):
            before = registry.aliases().get(PREVIOUS)
            champion = None if before is None else registry.version(before)
        known = None if champion is None else champion.tags.get("archive_sha256")
    except TrainingError as error:  # the step has to run, since the gates refuse the model for this error
        known = str(error)
    configs = config("features", "training", "gates", "decision")(context)
    return [*configs, context.settings.serving.model_name, known]


def _program(context: Context) -> str | None:
    file = context.files.training / "model.pt2"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
