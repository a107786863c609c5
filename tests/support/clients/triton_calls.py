"""Every call of tritonclient, HTTP and gRPC."""

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from calls import ADDRESS, GRPC, HEADERS, IDS, MASKED, MODEL, VERSION, outcomes, report

OUTPUTS = ("status", "churn_probability")


def fresh():
    """tritonclient writes headers of its own into those that it is given."""
    return dict(HEADERS)


def tensor(module, values, shape=None, **how):
    array = np.array(values) if not isinstance(values[0], str) else np.array(values, dtype=object)
    datatype = "INT64" if array.dtype != object else "BYTES"
    made = module.InferInput("user_id", shape or [len(values)], datatype)
    made.set_data_from_numpy(array.reshape(shape or [len(values)]), **how)
    return made


def scores(answer):
    return answer.as_numpy("churn_probability").tolist()


def named(answer):
    """The tensors as they came, in their order."""
    body = answer.get_response()
    outputs = body["outputs"] if isinstance(body, dict) else body.outputs
    return [one["name"] if isinstance(one, dict) else one.name for one in outputs]


http = over_http.InferenceServerClient(ADDRESS)
grpc = over_grpc.InferenceServerClient(GRPC)


def both(module, client, name):
    def infer(*inputs, **how):
        return client.infer(MODEL, list(inputs), headers=fresh(), **how)

    return {
        f"{name} is_server_live": lambda: client.is_server_live(fresh()),
        f"{name} is_server_ready": lambda: client.is_server_ready(fresh()),
        f"{name} is_model_ready": lambda: client.is_model_ready(MODEL, headers=fresh()),
        f"{name} is_model_ready, model_version": lambda: client.is_model_ready(MODEL, VERSION, fresh()),
        f"{name} get_server_metadata": lambda: bool(client.get_server_metadata(fresh())),
        f"{name} get_model_metadata": lambda: bool(client.get_model_metadata(MODEL, headers=fresh())),
        f"{name} get_model_metadata, model_version": lambda: bool(
            client.get_model_metadata(MODEL, VERSION, fresh())
        ),
        f"{name} infer, numpy": lambda: scores(infer(tensor(module, IDS))),
        f"{name} infer, numpy [n, 1]": lambda: scores(infer(tensor(module, IDS, [len(IDS), 1]))),
        f"{name} infer, numpy of texts": lambda: scores(infer(tensor(module, MASKED))),
        f"{name} infer, outputs": lambda: named(
            infer(tensor(module, IDS), outputs=[module.InferRequestedOutput(o) for o in OUTPUTS])
        ),
        f"{name} infer, model_version": lambda: scores(infer(tensor(module, IDS), model_version=VERSION)),
        f"{name} infer, request_id": lambda: (
            infer(tensor(module, IDS), request_id="q").get_response()["id"]
            if module is over_http
            else infer(tensor(module, IDS), request_id="q").get_response().id
        ),
    }


def later(start):
    """The scores of a call that is answered later."""
    import queue

    answers = queue.Queue()
    start(lambda result, error: answers.put(error or result))
    answer = answers.get(timeout=30)
    if isinstance(answer, Exception):
        raise answer
    return scores(answer)


only_http = {
    "HTTP infer, binary_data=False": lambda: scores(
        http.infer(MODEL, [tensor(over_http, IDS, binary_data=False)], headers=fresh())
    ),
    "HTTP infer, outputs with binary_data=False": lambda: (
        http.infer(
            MODEL,
            [tensor(over_http, IDS)],
            outputs=[over_http.InferRequestedOutput("churn_probability", binary_data=False)],
            headers=fresh(),
        )
        .as_numpy("churn_probability")
        .tolist()
    ),
    **{
        f"HTTP infer, request_compression_algorithm={how}": lambda how=how: scores(
            http.infer(MODEL, [tensor(over_http, IDS)], headers=fresh(), request_compression_algorithm=how)
        )
        for how in ("gzip", "deflate")
    },
    **{
        f"HTTP infer, response_compression_algorithm={how}": lambda how=how: scores(
            http.infer(MODEL, [tensor(over_http, IDS)], headers=fresh(), response_compression_algorithm=how)
        )
        for how in ("gzip", "deflate")
    },
    "HTTP async_infer": lambda: scores(
        http.async_infer(MODEL, [tensor(over_http, IDS)], headers=fresh()).get_result()
    ),
}
only_grpc = {
    **{
        f"gRPC infer, compression_algorithm={how}": lambda how=how: scores(
            grpc.infer(MODEL, [tensor(over_grpc, IDS)], headers=fresh(), compression_algorithm=how)
        )
        for how in ("gzip", "deflate")
    },
    "gRPC async_infer": lambda: later(
        lambda callback: grpc.async_infer(MODEL, [tensor(over_grpc, IDS)], callback, headers=fresh())
    ),
}
report(outcomes(both(over_http, http, "HTTP") | only_http | both(over_grpc, grpc, "gRPC") | only_grpc))
