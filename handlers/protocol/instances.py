"""Bodies with an object for each customer: native, `{"user_id": 1}` or a list of these, and `instances` of
v1."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from handlers.protocol.fields import (
    check_affordable,
    checked_id,
    countable,
    feature_values,
    parameters_of,
    wants_of,
)
from handlers.protocol.json_answers import headers_of, json_answer
from handlers.protocol.json_body import below, jsonable, kind, only
from handlers.protocol.messages import (
    Answer,
    BadRequest,
    Call,
    Explanation,
    Outcome,
    Refusal,
    Request,
    Rules,
    UserId,
    Wants,
)


def parse_native(body: Mapping[str, Any], rules: Rules, call: Call) -> Request:
    """One customer; the answer contains the features unless `parameters.features` is false. Raises
    BadRequest.
    """
    wants = wants_of(parameters_of(body), call, features=True)
    instance = {name: value for name, value in body.items() if name != "parameters"}
    return _request("native", [instance], "", rules, wants)


def parse_list(body: list[Any], rules: Rules, call: Call) -> Request:
    """Several customers in a bare list. Raises BadRequest."""
    return _request("native_list", countable(body, "body", rules), "body", rules, wants_of({}, call))


def parse_v1(body: Mapping[str, Any], rules: Rules, call: Call) -> Request:
    """`{"instances": [...]}`; one object may be given without the list. Raises BadRequest."""
    only(body, ("instances", "parameters"), "body")
    instances = body["instances"]
    if isinstance(instances, dict):
        instances = [instances]
    wants = wants_of(parameters_of(body), call)
    return _request("v1", countable(instances, "instances", rules), "instances", rules, wants)


def _request(
    protocol: Literal["native", "native_list", "v1"],
    instances: Sequence[Any],
    name: str,
    rules: Rules,
    wants: Wants,
) -> Request:
    lone = protocol == "native"
    user_ids, overrides = [], []
    for position, instance in enumerate(instances):
        where = "" if lone else f"{name}[{position}]"
        if not isinstance(instance, dict):
            raise BadRequest(f'{where}: expected an object {{"user_id": ...}}, found {kind(instance)}')
        if "user_id" not in instance:
            raise BadRequest(f"{below(where, 'user_id')}: missing")
        user_ids.append(checked_id(instance["user_id"], where, rules.id_type))
        if len(instance) > 1:
            known = ("user_id", "features", "parameters") if lone else ("user_id", "features")
            only(instance, known, where or "body")
            overrides.append(feature_values(instance.get("features"), below(where, "features"), rules))
        else:
            overrides.append({})
    check_affordable(wants, len(user_ids), rules)
    return Request(protocol, tuple(user_ids), tuple(overrides) if any(overrides) else (), wants)


def answer_instances(request: Request, outcomes: Sequence[Outcome], model_version: str) -> Answer:
    """The answer in the protocol of the request; `outcomes` has one for each user id, in the same order.

    The native body of one customer without a score is answered with the status of the refusal. In a list the
    refusal takes the place of the customer's answer, and the status is 200.
    """
    answers = [
        _instance_answer(user_id, outcome, model_version)
        for user_id, outcome in zip(request.user_ids, outcomes, strict=True)
    ]
    if request.protocol == "native":
        [outcome] = outcomes
        if isinstance(outcome, Refusal):
            return json_answer(outcome.http_status, answers[0], headers_of(outcome))
        return json_answer(200, answers[0])
    if request.protocol == "native_list":
        return json_answer(200, answers)
    return json_answer(200, _v1_body(request, answers))


def _instance_answer(user_id: UserId, outcome: Outcome, model_version: str) -> dict[str, Any]:
    if isinstance(outcome, Refusal):
        code = {"code": outcome.code} if outcome.code else {}
        return {"user_id": user_id, "error": outcome.error, **code, "churn_probability": None}
    answer: dict[str, Any] = {
        "user_id": user_id,
        "churn_probability": outcome.churn_probability,
        "prediction": outcome.prediction,
        "threshold": outcome.threshold,
        "model_version": model_version,
        "status": outcome.status,
    }
    if outcome.status_reason is not None:
        answer["status_reason"] = outcome.status_reason
    if outcome.overridden:
        answer["overridden"] = outcome.overridden
    if outcome.features is not None:
        answer["features"] = jsonable(outcome.features)
    if outcome.feature_age_s is not None:
        answer["feature_age_s"] = outcome.feature_age_s
    if outcome.reasons is not None:
        answer["reasons"] = outcome.reasons
    if outcome.explanation is not None:
        answer["explanation"] = explained(outcome.explanation)
    return answer


def _v1_body(request: Request, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """`predictions`, and for `:explain` KServe's `explanations`; a refused customer has an entry in both."""
    if not request.wants.explanation:
        return {"predictions": answers}
    explanations = [
        {"user_id": answer["user_id"], "error": answer["error"]}
        if "error" in answer
        else {"user_id": answer["user_id"], **answer.pop("explanation"), "reasons": answer["reasons"]}
        for answer in answers
    ]
    return {"predictions": answers, "explanations": explanations}


def explained(explanation: Explanation) -> dict[str, Any]:
    """The explanation as JSON has it."""
    return {
        "base_log_odds": explanation.base_log_odds,
        "log_odds": explanation.log_odds,
        "attributions": dict(explanation.attributions),
        "additivity_gap": explanation.additivity_gap,
        "method": explanation.method,
    }
