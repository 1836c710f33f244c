"""Google's own gRPC client against a server of ours, knowing no .proto files: reflection tells all of them.
Usage: grpc_client.py HOST:PORT http://HOST:PORT MODEL"""

import json
import sys
import threading
import urllib.request

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

target, http, model = sys.argv[1:]
channel = grpc.insecure_channel(target)
database = ProtoReflectionDescriptorDatabase(channel)
services = set(database.get_services())
assert {"vllm.Inference", "vllm.Control", "grpc.health.v1.Health"} <= services, services
pool = DescriptorPool(database)
KINDS = {
    (False, False): channel.unary_unary,
    (False, True): channel.unary_stream,
}


def message(name):
    return GetMessageClass(pool.FindMessageTypeByName(name))


def call(service, method):
    found = pool.FindServiceByName(service).methods_by_name[method]
    answer = GetMessageClass(found.output_type)
    make = KINDS[found.client_streaming, found.server_streaming]
    return make(
        f"/{service}/{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=answer.FromString,
    )


def complete(**fields):
    body = json.dumps({"model": model, "temperature": 0, **fields}).encode()
    request = urllib.request.Request(f"{http}/v1/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


health = health_pb2_grpc.HealthStub(channel)
assert health.Check(health_pb2.HealthCheckRequest(service="vllm.Inference")).status == 1
watched = health.Watch(health_pb2.HealthCheckRequest())
assert next(watched).status == 1
watched.cancel()

info = call("vllm.Control", "GetServerInfo")(message("vllm.GetServerInfoRequest")())
assert info.max_model_len > 0 and info.total_kv_blocks > 0 and info.proto_version, info
named = call("vllm.Control", "GetModelInfo")(message("vllm.GetModelInfoRequest")())
assert named.model_id == model and named.supports_token_ids_input, named

GenerateRequest = message("vllm.GenerateRequest")
generate, stream = call("vllm.Inference", "Generate"), call("vllm.Inference", "GenerateStream")
PROMPT = "The capital of France is"

# The same tokens as over HTTP, whole and streamed, of text and of tokens.
request = GenerateRequest(model=model, text=PROMPT)
request.stopping.max_new_tokens = 24
request.response.output_token_ids = True
request.response.prompt_token_ids = True
request.response.output_logprobs = True
request.response.output_candidates.top_n = 2
whole = generate(request)
wanted = complete(prompt=PROMPT, max_tokens=24)
assert whole.outputs.text == wanted["choices"][0]["text"], (whole, wanted)
assert whole.outputs.finish_info.num_output_tokens == wanted["usage"]["completion_tokens"]
count = len(whole.outputs.token_ids)
assert count == whole.outputs.num_tokens == len(whole.outputs.logprobs) == len(whole.outputs.candidate_tokens) == 24
assert set(whole.outputs.ranks) == {1}, "greedy"
tokens = GenerateRequest(model=model)
tokens.CopyFrom(request)
tokens.token_ids.ids.extend(whole.prompt_info.token_ids)
for asked in (request, tokens):
    parts = list(stream(asked))
    assert "".join(part.outputs.text for part in parts) == whole.outputs.text
    assert [token for part in parts for token in part.outputs.token_ids] == list(whole.outputs.token_ids)
    assert parts[0].HasField("prompt_info") and not parts[1].HasField("prompt_info")
    assert parts[-1].outputs.finish_info.finish_reason == whole.outputs.finish_info.finish_reason
    assert parts[-1].outputs.finish_info.num_cached_tokens > 0, parts[-1]

# Held to a schema.
schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
          "additionalProperties": False}
structured = GenerateRequest(text="As JSON: ")
structured.stopping.max_new_tokens = 40
structured.decoding.json = json.dumps(schema)
assert json.loads(generate(structured).outputs.text)["city"] in ("Paris", "Rome")

# Refused, with the field's name.
try:
    generate(GenerateRequest(text="x", lora_name="mine"))
    raise AssertionError("a LoRA was taken")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and "lora_name" in error.details(), error

# Out of time, by the client's clock and by ours.
long = GenerateRequest(text=PROMPT, request_id="long")
long.stopping.max_new_tokens = 1000
long.stopping.ignore_eos = True
try:
    list(stream(long, timeout=0.3))
    raise AssertionError("it had time")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

# Aborted by its name while it streams.
answers = stream(long)
next(answers)
abort = message("vllm.AbortRequest")(request_ids=["long"])
threading.Timer(0.1, lambda: call("vllm.Control", "Abort")(abort)).start()
last = list(answers)[-1]
assert last.outputs.finish_info.finish_reason == 3, last

print("all cases passed")
