"""The settings in `configs/monitoring.yaml`."""

from pydantic import Field

from core.config import Config
from monitoring import budget


class ExporterConfig(Config):
    """`churn monitor export`: monitoring, retraining and rollouts as metrics for Prometheus."""

    address: str = Field("127.0.0.1:8091", pattern=r"^[^:\s]+:\d+$")
    """host:port at which metrics are served; port 0: the system chooses. They contain names of features and
    segments and no value of a customer. Only networks that Prometheus is in should reach the address."""
    refresh_s: float = Field(15.0, gt=0)
    """Seconds between two readings of the database."""


class ArrivalsConfig(Config):
    """Rows that arrived in the records since the step before."""

    volume_ratio: float = Field(3.0, gt=1)
    """How many times more or fewer rows or customers than in a typical step are still normal."""
    amount_ratio: float = Field(1.6, gt=1)
    """How many times larger or smaller than in a typical step an amount is suspicious, for all rows and for
    each segment."""
    amount_share: float = Field(0.3, gt=0, lt=1)
    """By how much the share of customers with such amounts may rise."""
    duplicates: float = Field(0.02, gt=0, lt=1)
    """By how much the share of rows that repeat an earlier row in every column may rise."""
    hours: float = Field(0.15, gt=0, lt=1)
    """By how much the share of rows at the hours of another time zone may rise."""
    vanished: float = Field(0.01, gt=0, lt=1)
    """Share of the customers of the snapshot before who may have no row in the records any more."""


class TransitionsConfig(Config):
    """Changes of each customer's features from one snapshot to the next."""

    newly_null: float = Field(0.05, gt=0, lt=1)
    """By how much the share of values that become null may rise."""
    newly_default: float = Field(0.08, gt=0, lt=1)
    """By how much the share of values that become the default may rise."""
    ratio: float = Field(4.0, gt=1)
    """How many times larger or smaller the values of half of the customers may become: another unit."""
    decreases: float = Field(0.01, gt=0, lt=1)
    """Share of customers with a lower value of a feature that has only grown until then."""
    unchanged: float = Field(0.10, gt=0, lt=1)
    """By how much the share of customers may rise whose features are all equal to those before: a copy."""


class DriftConfig(Config):
    """Distributions against the training rows and against the same season."""

    share: float = Field(0.10, gt=0, lt=1)
    """By how much the share of customers in a part of the range may differ; a tenth of the training rows is
    in each part."""
    nulls: float = Field(0.10, gt=0, lt=1)
    """By how much the share of missing values may differ."""
    labels: float = Field(0.08, gt=0, lt=1)
    """By how much the churn rate may differ."""
    tenure: str | None = "tenure_months"
    """The feature that states for how long a customer is known. Distributions are compared among customers of
    equal tenure, because a young log grows older. null, or no such feature: they are compared as they are."""


class StalenessConfig(Config):
    """Ages and volumes."""

    records_days: float = Field(7, gt=0)
    """The newest row of the records may be so old."""
    snapshots_days: float | None = None
    """The newest snapshot may be so old; null: `features.ttl_days`."""
    predictions_days: float = Field(2, gt=0)
    """The newest prediction may be so old, where there is a prediction log."""
    stale_share: float = Field(0.05, gt=0, lt=1)
    """By how much the share of predictions from stale or degraded features may rise."""
    unknown_share: float = Field(0.05, gt=0, lt=1)
    """By how much the share of predictions for customers without features may rise."""
    dropped_share: float = Field(0.01, gt=0, lt=1)
    """Share of the records of the prediction log that workers may drop, because its sink cannot take them."""


class SkewConfig(Config):
    """Logged feature vectors against the same vectors derived again from the records."""

    customers: int = Field(3, gt=0)
    """So many customers with a difference are a finding."""
    tolerance: float = Field(1e-9, ge=0)
    """Relative difference of two numbers that count as equal."""
    moments: int = Field(4, gt=0)
    """Newest moments of features, of those in the log, for which vectors are derived again."""


class PerformanceConfig(Config):
    """Performance of the model on labels, and estimated without labels."""

    matured_days: float = Field(35, gt=0)
    """Length of the window of predictions, the newest whose horizon has passed, on whose labels metrics are
    measured."""
    step_days: float = Field(14, gt=0)
    """Early labels: length of a step, within which the returns of customers are compared with the scores."""
    late_days: float = Field(30, gt=0)
    """Days between two checks of matured labels. Labels of a horizon overlap at so many checks as there are
    such periods in it; each of these is a history of its own."""
    tolerance: float = Field(0.025, ge=0)
    """Loss that a fresh model may avoid without a finding, as a share of the loss of a constant score."""
    exceptional: float = Field(0.001, gt=0, lt=0.5)
    """Share of checks that may be exceptional in any way (a campaign, a strike) without a change of the
    model's world. It limits the evidence of one check."""
    most_nats: float = Field(9.0, gt=0)
    """The largest evidence of one check, before the price of exceptional checks is subtracted."""
    sample: int = Field(20_000, ge=1000)
    """Most customers of one moment to which a fresh model is fitted."""
    moments: int = Field(3, ge=2)
    """Matured moments from which the spread of the churn level is measured; with fewer, an estimate without
    labels is untrusted."""
    label_age_days: float = Field(45, gt=0)
    """So many days after their horizon, the newest matured predictions are too old for an estimate."""
    unseen_share: float = Field(0.05, gt=0, lt=1)
    """Share of the customers in regions with almost no matured rows above which an estimate is untrusted."""
    doubt: float = Field(0.1, gt=0, lt=1)
    """An estimate is untrusted when labels give this much evidence of a change, long before a finding."""


class MonitoringConfig(Config):
    """What is checked, and with which margins. A difference within its margin is never a finding."""

    every_days: float = Field(14, gt=0)
    """Days between two checks, and the length of the window that a check reads."""
    alpha: float = Field(0.003, gt=0, lt=0.5)
    """The largest probability with which a whole history of checks without a change has any page. All tests
    that can page share it (monitoring/budget.py)."""
    min_rows: int = Field(50, gt=0)
    """Rows or customers below which a number is not judged."""
    history: int = Field(26, ge=4)
    """Steps and snapshots before the check from which natural variation is measured."""
    segments: tuple[str, ...] = ()
    """Columns of the records or of the features. Each of their values is judged separately, too."""
    exporter: ExporterConfig = ExporterConfig()
    arrivals: ArrivalsConfig = ArrivalsConfig()
    transitions: TransitionsConfig = TransitionsConfig()
    drift: DriftConfig = DriftConfig()
    staleness: StalenessConfig = StalenessConfig()
    skew: SkewConfig = SkewConfig()
    performance: PerformanceConfig = PerformanceConfig()

    def level(self, test: str, subjects: int) -> float:
        """Log evidence at which a test of `budget.TESTS` raises an alarm, made for each of `subjects`."""
        return budget.level(test, subjects, self.alpha)
