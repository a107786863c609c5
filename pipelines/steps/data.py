"""The steps from the source to the training set."""

from pipelines.context import Context
from pipelines.services import needed_services
from pipelines.steps.depends import columns_read


def ingest_source(context: Context) -> None:
    """Reads, validates and masks the source."""
    from data.ingest import ingest
    from data.records.remote import publish

    further = columns_read(context)
    until = context.known_until
    ingest(context.settings.data, context.files, context.as_of, context.progress, further, until)
    publish(context.settings.data, context.files, context.progress)


def compute_features(context: Context) -> None:
    """Computes the snapshots and labels from the records, for each service that is needed."""
    from features.build import build_features

    for service in needed_services(context.settings, context.files, context.progress):
        until = context.known_until
        build_features(service.spec, service.files, progress=context.progress, until=until)


def fill_online_store(context: Context) -> None:
    """Puts the newest snapshot of each needed service into the online store; later streamed vectors stay."""
    from features.store import materialize
    from pipelines.streaming import is_loaded, newest_moment, push_again, streamed

    settings, files = context.settings, context.files
    streams = context.known_until is None and is_loaded(settings)
    later = streamed(settings, newest_moment(files)) if streams else []
    for service in needed_services(settings, files, context.progress):
        materialize(service.spec, service.files, context.progress, later)
    if streams:
        push_again(settings, newest_moment(files), context.now)


def join_training_set(context: Context) -> None:
    """Joins labels to the features of their moment; the file appears as a whole."""
    from features.history import training_set

    rows = training_set(context.settings.features, context.files, context.progress)
    file = context.files.training_set
    partial = file.with_suffix(".partial")
    rows.to_parquet(partial, index=False)
    partial.replace(file)
