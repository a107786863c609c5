"""The content of an overlay, before it is written as YAML."""

from dataclasses import dataclass, field
from typing import Any, Literal

from churn.init.belief import Notes


@dataclass
class Proposal:
    shape: Literal["transactions", "labelled"]
    name: str
    """Of the workspace and the service."""
    source: dict[str, Any]
    """`data.source`, in the order in which it is written."""
    notes: Notes
    looked_at: str
    """What was read, in words."""
    data: dict[str, Any] = field(default_factory=dict)
    """Further keys of `data`."""
    expectations: list[dict[str, Any]] = field(default_factory=list)
    features: list[dict[str, Any]] | None = None
    """None: the features of configs/features.yaml."""
    derived: list[dict[str, Any]] | None = None
    features_settings: dict[str, Any] = field(default_factory=dict)
    """Further keys of `features`."""
    remarks: dict[str, str] = field(default_factory=dict)
    """A comment for a key of the source, of `data` or of `features`, or for a feature by its name."""

    def allow_rejected(self, share: float, remark: str) -> bool:
        """Raise the bound of rejected rows above `share`, the share in the sample. False for up to 0.5 %."""
        if share <= 0.005:
            return False
        self.data["max_rejected_share"] = round(min(0.95, share * 1.4 + 0.02), 2)
        self.remarks["max_rejected_share"] = remark
        return True
