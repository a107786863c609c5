"""The stage `answer`: writes the answer of each request of a scored batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from handlers import telemetry
from handlers.batch import Batch, Scored
from handlers.bundle import Bundle
from handlers.outcomes import NO_SCORE, outcome_of
from handlers.protocol import fast_path, protocols
from handlers.protocol.json_answers import refuse
from handlers.protocol.messages import Answer, Explanation, Outcome, Prediction, Refusal, Request, Wants
from handlers.scoring.explain import CLOSE, Explainer, NoReference
from handlers.telemetry import Telemetry


@dataclass(frozen=True)
class AnswerWriter:
    """Writes the answers of one model."""

    bundle: Bundle
    explainer: Explainer
    telemetry: Telemetry
    model_name: str

    @cached_property
    def _template(self) -> fast_path.Template:
        return fast_path.Template(self.model_name, self.bundle.model_version, self.bundle.threshold)

    def answers(self, batch: Batch, scored: Scored | Refusal) -> list[Answer]:
        """One answer for each request. If `scored` is a refusal, all requests get it that have none yet."""
        if isinstance(scored, Refusal):
            return [refuse(r if isinstance(r, Refusal) else scored) for r in batch.requests]
        return [
            refuse(request) if isinstance(request, Refusal) else self._answer(request, rows, scored)
            for request, rows in zip(batch.requests, scored.rows, strict=True)
        ]

    def _answer(self, request: Request, rows: Sequence[int], scored: Scored) -> Answer:
        if scored.is_all_ok and self._template.fits(request):
            return self._template.answer(request, [scored.scores[row] for row in rows])
        wants = request.wants
        outcomes = [outcome_of(scored, row, self.bundle, wants) for row in rows]
        if NO_SCORE in outcomes and (field := protocols.PROTOCOLS[request.protocol].list_field):
            # This is a fault of the model, not of one customer. In an answer with status 200 neither the
            # gateway, which would try the stable variant, nor a rule of the rollout would notice it.
            return refuse(NO_SCORE, f"{field}[{outcomes.index(NO_SCORE)}]: ")
        if wants.reasons or wants.explanation:
            try:
                outcomes = self._explained(outcomes, rows, scored, wants)
            except NoReference as error:
                self.telemetry.add(telemetry.ERRORS, telemetry.NO_REFERENCE)
                return refuse(Refusal(503, str(error), telemetry.NO_REFERENCE, 60))
        return protocols.respond(request, outcomes, self.model_name, self.bundle.model_version)

    def _explained(
        self, outcomes: Sequence[Outcome], rows: Sequence[int], scored: Scored, wants: Wants
    ) -> list[Outcome]:
        """The same outcomes; predictions have their reasons and explanations. Raises NoReference."""
        which = [row for row, outcome in zip(rows, outcomes, strict=True) if isinstance(outcome, Prediction)]
        explanations = iter(self.explainer.explain(scored.columns, which) if which else ())
        return [
            self._with_reasons(outcome, scored, row, next(explanations), wants)
            if isinstance(outcome, Prediction)
            else outcome
            for row, outcome in zip(rows, outcomes, strict=True)
        ]

    def _with_reasons(
        self, prediction: Prediction, scored: Scored, row: int, explanation: Explanation, wants: Wants
    ) -> Prediction:
        if explanation.additivity_gap > CLOSE:
            self.telemetry.add(telemetry.ERRORS, telemetry.ADDITIVITY)
        reasons = self.explainer.reasons(scored.columns, row, explanation, wants.reasons)
        return replace(
            prediction, reasons=tuple(reasons), explanation=explanation if wants.explanation else None
        )
