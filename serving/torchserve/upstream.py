"""Where one TorchServe is reached."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Upstream:
    """The address of one TorchServe for the gateway, and the token that the gateway must add."""

    inference_port: int
    grpc_port: int
    token: str = field(repr=False)
