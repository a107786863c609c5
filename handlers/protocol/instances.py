"""Bodies with an object for each customer: native, `{"user_id": 1}` or a list of these, and `instances` of
v1."""

from collections.abc import Mapping, Sequence
from typing import Any

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
    Protocol,
    Refusal,
    Request,
    Route,
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
    return _request(NATIVE, [instance], rules, wants)


def parse_list(body: list[Any], rules: Rules, call: Call) -> Request:
    """Several customers in a bare list. Raises BadRequest."""
    return _request(NATIVE_LIST, countable(body, "body", rules), rules, wants_of({}, call))


def parse_v1(body: Mapping[str, Any], rules: Rules, call: Call) -> Request:
    """`{"instances": [...]}`; one object may be given without the list. Raises BadRequest."""
    only(body, ("instances", "parameters"), "body")
    instances = body["instances"]
    if isinstance(instances, dict):
        instances = [instances]
    wants = wants_of(parameters_of(body), call)
    return _request(V1, countable(instances, "instances", rules), rules, wants)


def _request(protocol: Protocol, instances: Sequence[Any], rules: Rules, wants: Wants) -> Request:
    name, lone = protocol.list_field, not protocol.list_field
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
    return Request(protocol.name, tuple(user_ids), tuple(overrides) if any(overrides) else (), wants)


def answer_native(request: Request, outcomes: Sequence[Outcome], _: str, model_version: str) -> Answer:
    """The object of the only customer; a refusal has its own HTTP status."""
    [outcome], [answer] = outcomes, _instance_answers(request, outcomes, model_version)
    if isinstance(outcome, Refusal):
        return json_answer(outcome.http_status, answer, headers_of(outcome))
    return json_answer(200, answer)


def answer_list(request: Request, outcomes: Sequence[Outcome], _: str, model_version: str) -> Answer:
    """A list of objects. A refusal takes the place of the customer's answer, and the status is 200."""
    return json_answer(200, _instance_answers(request, outcomes, model_version))


def answer_v1(request: Request, outcomes: Sequence[Outcome], _: str, model_version: str) -> Answer:
    """`{"predictions": [...]}`, refusals as in `answer_list`."""
    return json_answer(200, _v1_body(request, _instance_answers(request, outcomes, model_version)))


def _instance_answers(
    request: Request, outcomes: Sequence[Outcome], model_version: str
) -> list[dict[str, Any]]:
    return [
        _instance_answer(user_id, outcome, model_version)
        for user_id, outcome in zip(request.user_ids, outcomes, strict=True)
    ]


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


NATIVE = Protocol(
    name="native",
    parse=parse_native,
    respond=answer_native,
    frame=("", ""),
    routes=(
        Route("native", "/predictions/{model}"),
        Route("native-explain", "/explanations/{model}"),
    ),
)
NATIVE_LIST = Protocol(
    name="native_list",
    parse=parse_list,
    respond=answer_list,
    list_field="body",
    frame=("[", "]"),
)
V1 = Protocol(
    name="v1",
    parse=parse_v1,
    respond=answer_v1,
    key="instances",
    list_field="instances",
    frame=('{"predictions": [', "]}"),
    routes=(
        Route("v1-predict", "/v1/models/{model}:predict"),
        Route("v1-explain", "/v1/models/{model}:explain"),
    ),
)
