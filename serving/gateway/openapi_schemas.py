"""Schemas for serving/gateway/openapi.py in JSON Schema 2020-12, as strict as the parsers in handlers/."""

from collections.abc import Mapping
from typing import Any

from handlers.protocol.messages import MAX_EXPLAINED, MAX_ID_LENGTH, MAX_TEXT_LENGTH
from handlers.protocol.open_inference import ALWAYS, ON_REQUEST

INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
MASKED = {"type": "string", "pattern": "^u_[0-9a-f]{32}$"}
NAME = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}
FEATURE_TYPES: Mapping[str, Mapping[str, Any]] = {
    "int64": {**INT64, "type": ["integer", "null"]},
    "float64": {"type": ["number", "null"], "minimum": -1.7e308, "maximum": 1.7e308},
    "string": {"type": ["string", "null"], "maxLength": MAX_TEXT_LENGTH},
}


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(metadata: Mapping[str, Any], max_instances: int) -> dict[str, Any]:
    """Name -> schema. `metadata`: the result of serving/gateway/metadata.py, or {} for any model."""
    features = metadata.get("parameters", {}).get("features")
    datatypes = [tensor["datatype"] for tensor in metadata.get("inputs", ())] or ["INT64", "BYTES"]
    return _requests(datatypes, features, max_instances) | _answers() | _metadata()


def _requests(datatypes: list[str], features: Mapping[str, str] | None, max_instances: int) -> dict[str, Any]:
    known = {name: FEATURE_TYPES[dtype] for name, dtype in (features or {}).items()}
    ids = [INT64, MASKED] if datatypes == ["INT64"] else [NAME] if datatypes == ["BYTES"] else [INT64, NAME]
    instance = {"user_id": {"anyOf": ids}, "features": reference("Features")}
    return {
        "Features": {
            "description": "Values that stand in for the store's; types are those of the model's spec.",
            "type": "object",
            **(
                _closed(known)
                if features is not None
                else {"additionalProperties": {"type": ["number", "string", "null"]}}
            ),
        },
        "Parameters": {
            "type": "object",
            **_closed(
                {
                    "features": {"type": "boolean"},
                    "reasons": {
                        "description": f"How many at most; for at most {MAX_EXPLAINED} customers by default.",
                        "anyOf": [
                            {"type": "boolean"},
                            {"type": "integer", "minimum": 0, "maximum": MAX_TEXT_LENGTH},
                        ],
                    },
                }
            ),
        },
        "Instance": {"type": "object", "required": ["user_id"], **_closed(instance)},
        "NativeRequest": {
            "anyOf": [
                {
                    "type": "object",
                    "required": ["user_id"],
                    **_closed(instance | {"parameters": reference("Parameters")}),
                },
                _several(reference("Instance"), max_instances),
            ]
        },
        "V1Request": {
            "type": "object",
            "required": ["instances"],
            **_closed(
                {
                    "instances": {
                        "anyOf": [_several(reference("Instance"), max_instances), reference("Instance")]
                    },
                    "parameters": reference("Parameters"),
                }
            ),
        },
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            **_closed(
                {
                    "id": {"type": ["string", "null"], "maxLength": MAX_ID_LENGTH},
                    "model_name": {"type": "string"},
                    "model_version": {"type": "string"},
                    "parameters": {
                        "description": "Ours are `features` and `reasons`; others change nothing.",
                        "type": "object",
                        "properties": {
                            "features": {"type": "boolean"},
                            "reasons": {"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0}]},
                            "binary_data_output": {"type": "boolean"},
                        },
                    },
                    "inputs": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {"oneOf": [_tensor(datatype, max_instances) for datatype in datatypes]},
                    },
                    "outputs": {
                        "description": "The tensors of the answer, in their order.",
                        "type": ["array", "null"],
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {
                                "name": {"enum": [*ALWAYS, *ON_REQUEST]},
                                "parameters": {
                                    "type": "object",
                                    "properties": {"binary_data": {"type": "boolean"}},
                                },
                            },
                        },
                    },
                }
            ),
        },
    }


def _tensor(datatype: str, max_instances: int) -> dict[str, Any]:
    value = INT64 if datatype == "INT64" else NAME
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        **_closed(
            {
                "name": {"const": "user_id"},
                "datatype": {"const": datatype},
                "shape": {
                    "description": "[n] or [n, 1].",
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 2,
                    "items": {"type": "integer", "minimum": 1},
                },
                "data": {
                    "anyOf": [
                        _several(value, max_instances),
                        _several(
                            {"type": "array", "minItems": 1, "maxItems": 1, "items": value}, max_instances
                        ),
                    ]
                },
                "parameters": {"type": "object"},
            }
        ),
    }


def _answers() -> dict[str, Any]:
    scored = {
        "type": "object",
        "required": ["user_id", "churn_probability", "prediction", "threshold", "model_version", "status"],
        "properties": {
            "user_id": {"type": ["integer", "string"]},
            "churn_probability": {"type": "number", "minimum": 0, "maximum": 1},
            "prediction": {"enum": ["High Risk", "Low Risk"]},
            "threshold": {"type": "number"},
            "model_version": {"type": "string"},
            "status": {"enum": ["ok", "stale", "degraded", "unknown"]},
            "status_reason": {"type": "string"},
            "overridden": {"type": "array", "items": {"type": "string"}},
            "features": {"type": "object"},
            "feature_age_s": {"type": "number"},
            "reasons": {"type": "array", "items": {"type": "string"}},
            "explanation": reference("Explanation"),
        },
    }
    refused = {
        "type": "object",
        "required": ["user_id", "error", "churn_probability"],
        "properties": {
            "user_id": {"type": ["integer", "string"]},
            "error": {"type": "string"},
            "code": {"type": "string"},
            "churn_probability": {"type": "null"},
        },
    }
    outcome = {"anyOf": [reference("Scored"), reference("Refused")]}
    numbers = {"base_log_odds": {"type": "number"}, "log_odds": {"type": "number"}}
    return {
        "Scored": scored,
        "Refused": refused,
        "Explanation": {
            "type": "object",
            "required": [*numbers, "attributions", "additivity_gap", "method"],
            "properties": {
                **numbers,
                "attributions": {"type": "object", "additionalProperties": {"type": "number"}},
                "additivity_gap": {"type": "number"},
                "method": {"enum": ["exact", "permutation"]},
            },
        },
        "NativeAnswer": {"anyOf": [reference("Scored"), {"type": "array", "items": outcome}]},
        "V1Answer": {
            "type": "object",
            "required": ["predictions"],
            "properties": {
                "predictions": {"type": "array", "items": outcome},
                "explanations": {"type": "array", "items": {"type": "object", "required": ["user_id"]}},
            },
        },
        "InferAnswer": {
            "type": "object",
            "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "shape", "datatype"],
                        "properties": {
                            "name": {"enum": [*ALWAYS, *ON_REQUEST]},
                            "datatype": {"enum": ["INT64", "FP64", "BYTES"]},
                            "shape": {"type": "array", "items": {"type": "integer"}},
                            "data": {"type": "array"},
                            "parameters": {"type": "object"},
                        },
                    },
                },
            },
        },
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
        },
    }


def _metadata() -> dict[str, Any]:
    tensors = {"type": "array", "items": {"type": "object", "required": ["name", "datatype", "shape"]}}
    return {
        "ServerMetadata": {
            "type": "object",
            "required": ["name", "version", "extensions"],
            "properties": {"extensions": {"type": "array", "items": {"type": "string"}}},
        },
        "ModelMetadata": {
            "type": "object",
            "required": ["name", "versions", "platform", "inputs", "outputs"],
            "properties": {
                "versions": {"type": "array", "items": {"type": "string"}},
                "inputs": tensors,
                "outputs": tensors,
                "parameters": {"type": "object"},
            },
        },
    }


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object with these keys and no others: a misspelled one is refused."""
    return {"properties": dict(properties), "additionalProperties": False}


def _several(items: Mapping[str, Any], at_most: int) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": at_most, "items": items}
