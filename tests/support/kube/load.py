"""Work that customers bring, and the autoscaler that follows it: whether there are enough pods for it.

A pod does one unit of work at a time. Kubernetes' HorizontalPodAutoscaler aims at `target` of it, adds pods
at once and takes them away after it has wanted fewer for a while (its stabilization window).
"""

from dataclasses import dataclass, field
from math import ceil


@dataclass
class Load:
    units: float
    """Of work: pods that would be fully busy."""
    target: float = 0.7
    shrinks_after: int = 40
    """Steps for which fewer pods must have been enough."""
    overloaded: list[str] = field(default_factory=list)
    """Steps at which pods got more than they can do, in words."""
    most: dict[str, int] = field(default_factory=dict)
    """Deployment -> the most pods that it had."""
    _wanted: dict[str, list[int]] = field(default_factory=dict)

    def replicas(self, name: str, share: float, now: int, least: int, most: int) -> int:
        """The pods that the autoscaler requests for a Deployment that gets `share` percent."""
        wanted = self._wanted.setdefault(name, [])
        wanted.append(min(max(ceil(self.units * share / 100 / self.target), least), most))
        return max(wanted[-1], max(wanted[-self.shrinks_after :]) if now > wanted[-1] else 0)

    def arrives(self, name: str, share: float, pods: int) -> None:
        self.most[name] = max(self.most.get(name, 0), pods)
        work = self.units * share / 100
        if work > pods:
            self.overloaded.append(f"{name}: {work:.2f} of work for {pods} pods at {share:g} %")
