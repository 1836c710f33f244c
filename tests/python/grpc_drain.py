"""Streams 200 tokens, says so once the first is there, and then waits for the server's end. Usage: grpc_drain.py HOST:PORT"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(sys.argv[1])
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
method = pool.FindServiceByName("vllm.Inference").methods_by_name["GenerateStream"]
stream = channel.unary_stream(
    "/vllm.Inference/GenerateStream",
    request_serializer=lambda request: request.SerializeToString(),
    response_deserializer=GetMessageClass(method.output_type).FromString,
)
watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
assert next(watched).status == health_pb2.HealthCheckResponse.SERVING

request = GetMessageClass(method.input_type)(text="Once upon a time")
request.stopping.max_new_tokens = 200
request.stopping.ignore_eos = True
answers = stream(request)
tokens = next(answers).outputs.num_tokens
print("under way", flush=True)
assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
tokens += sum(part.outputs.num_tokens for part in answers)
assert list(watched) == []
print(f"NOT_SERVING, then all {tokens} tokens", flush=True)
