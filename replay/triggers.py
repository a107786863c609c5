"""The policies of a replay of the whole loop: whether a model is trained, from the signals of a moment."""

from core.errors import ReplayError
from replay.config import ReplayConfig
from replay.ours import Ours
from replay.situation import Choice, Policy, Rule, Situation


def policy_of(name: str, config: ReplayConfig) -> Policy:
    """The policy of that name. Raises ReplayError for an unknown one."""
    if name == "never":
        return Rule(lambda situation: Choice(False, "the first model serves for good"))
    if name == "drift":
        return Rule(lambda situation: _drift(situation, config.drift.psi))
    if name == "performance":
        return Rule(lambda situation: _performance(situation, config.performance.excess))
    if name == "ours":
        return Ours()
    word, _, number = name.partition(":")
    if word == "every" and number.isdigit() and int(number) > 0:
        return Rule(lambda situation: _cadence(situation, int(number)))
    raise ReplayError(f"--policy {name}: unknown; take {', '.join(POLICIES)}, with a whole number for N")


POLICIES = ("never", "every:N", "drift", "performance", "ours")


def _cadence(situation: Situation, every: int) -> Choice:
    due = situation.step % every == 0
    return Choice(due, f"step {situation.step} of a training every {every}")


def _drift(situation: Situation, threshold: float) -> Choice:
    signals = situation.signals
    if signals.psi is None:
        return Choice(False, "drift was not measured")
    reason = f"largest stability index {signals.psi:.3f} ({signals.psi_feature}), threshold {threshold:g}"
    return Choice(signals.psi > threshold, reason, {"psi": signals.psi})


def _performance(situation: Situation, excess: float) -> Choice:
    signals = situation.signals
    if signals.matured is None or signals.matured_loss is None:
        return Choice(False, "no outcomes are known yet")
    if signals.matured < situation.served_since:
        return Choice(False, "no outcomes of the champion are known yet")
    most = (1 + excess) * situation.champion_loss
    reason = f"log-loss {signals.matured_loss:.4f} of {signals.matured:%Y-%m-%d}, threshold {most:.4f}"
    return Choice(signals.matured_loss > most, reason, {"log_loss": signals.matured_loss, "most": most})
