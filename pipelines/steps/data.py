"""The steps from the source to the training set."""

from pipelines.context import Context
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
    """Computes the snapshots and labels from the records."""
    from features.build import build_features

    until = context.known_until
    build_features(context.settings.features, context.files, progress=context.progress, until=until)


def fill_online_store(context: Context) -> None:
    """Puts the newest snapshot into the online store; later vectors of a stream stay."""
    from features.store import materialize
    from pipelines.streaming import is_loaded, newest_moment, push_again, streamed

    settings, files = context.settings, context.files
    if context.known_until is not None or not is_loaded(settings):
        materialize(settings.features, files, context.progress)
        return
    latest = newest_moment(files)
    materialize(settings.features, files, context.progress, streamed(settings, latest))
    push_again(settings, latest, context.now)


def join_training_set(context: Context) -> None:
    """Joins labels to the features of their moment; the file appears as a whole."""
    from features.history import training_set

    rows = training_set(context.settings.features, context.files, context.progress)
    file = context.files.training_set
    partial = file.with_suffix(".partial")
    rows.to_parquet(partial, index=False)
    partial.replace(file)
