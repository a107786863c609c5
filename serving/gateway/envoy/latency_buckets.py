"""The buckets in which Envoy counts the response times of the servers."""

MANTISSAS = (
    *(1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.5, 2.8),
    *(3.2, 3.6, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0),
)
"""20 for each power of ten."""


def time_buckets(objective_ms: float) -> tuple[float, ...]:
    """Upper bounds of the buckets in ms, ascending; `objective_ms` is one of them.

    Envoy measures whole milliseconds, so that below 10 ms each has a bucket of its own.
    """
    whole = map(float, range(1, 10))
    scaled = (mantissa * scale for scale in (10, 100, 1000) for mantissa in MANTISSAS)
    return tuple(sorted({*whole, *scaled, 10_000, 20_000, 30_000, 60_000, float(objective_ms)}))
