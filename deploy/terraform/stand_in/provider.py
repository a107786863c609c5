"""A Terraform provider with the schema of a real one and nothing behind it.

`terraform validate` and `terraform test` with mock_provider ask a provider for its schema, and for opinions
on values, which are empty here. It neither plans nor applies: without mock_provider, `terraform plan` fails.

Environment: STAND_IN_SCHEMA, a file of schema.py; STAND_IN_ADDRESS, the provider's full source address;
STAND_IN_ONLY, if not empty, the types to serve, separated by commas (Terraform reads the schema in each of
its processes, 1.7 s for all).
"""

import gzip
import json
import os
import sys
from typing import Any

import tf.provider
import tf.runner
from tf.gen import tfplugin_pb2 as protocol
from tf.gen import tfplugin_pb2_grpc as rpc

# Field 11 (write_only, protocol 6.8) of Schema.Attribute, set to true: the generated messages of tf 1.2.0 are
# older.
WRITE_ONLY = b"\x58\x01"
NESTING = {"list": 2, "set": 3, "single": 1, "map": 4}  # Schema.NestedBlock.NestingMode


def _block(block: dict[str, Any]) -> Any:
    message = protocol.Schema.Block()
    for name, attribute in block["attributes"].items():
        flags = {key: on for key, on in attribute.items() if key in ("required", "optional", "computed")}
        added = message.attributes.add(name=name, type=json.dumps(attribute["type"]).encode(), **flags)
        if attribute.get("write_only"):
            added.MergeFromString(WRITE_ONLY)
    for name, nested in block["block_types"].items():
        counted = nested["nesting"] in ("list", "set")  # Terraform refuses counts for the other two
        below = message.block_types.add(
            type_name=name,
            nesting=NESTING[nested["nesting"]],
            min_items=nested["min"] if counted else 0,
            max_items=nested["max"] if counted else 0,
        )
        below.block.CopyFrom(_block(nested["block"]))
    return message


class Servicer(rpc.ProviderServicer):
    """Answers what Terraform asks without a cloud."""

    def __init__(self, app: object) -> None:
        with gzip.open(os.environ["STAND_IN_SCHEMA"], "rt", encoding="utf-8") as file:
            self.schema = json.load(file)
        self.only = set(filter(None, os.environ.get("STAND_IN_ONLY", "").split(",")))

    def GetMetadata(self, request: Any, context: Any) -> Any:
        context.abort(12, "not implemented: Terraform then asks for the schema")

    def GetProviderSchema(self, request: Any, context: Any) -> Any:
        answer = protocol.GetProviderSchema.Response()
        answer.server_capabilities.get_provider_schema_optional = False
        answer.provider.block.CopyFrom(_block(self.schema["provider"]))
        for kind, schemas in (("resources", answer.resource_schemas), ("data", answer.data_source_schemas)):
            for name, block in self.schema[kind].items():
                if not self.only or name in self.only:
                    schemas[name].block.CopyFrom(_block(block))
        return answer

    def ValidateProviderConfig(self, request: Any, context: Any) -> Any:
        return protocol.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request: Any, context: Any) -> Any:
        return protocol.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request: Any, context: Any) -> Any:
        return protocol.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, request: Any, context: Any) -> Any:
        return protocol.ConfigureProvider.Response()

    def StopProvider(self, request: Any, context: Any) -> Any:
        return protocol.StopProvider.Response()

    def GetFunctions(self, request: Any, context: Any) -> Any:
        return protocol.GetFunctions.Response()


class Provider:
    """What the runner asks of a provider."""

    def full_name(self) -> str:
        return os.environ["STAND_IN_ADDRESS"]


if __name__ == "__main__":
    tf.provider.ProviderServicer = Servicer
    tf.runner.run_provider(Provider(), sys.argv)
