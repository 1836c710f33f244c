"""Fetches a worker's tokenizer over gRPC, as SMG does. Usage: tokenizer.py HOST:PORT FOLDER"""

import hashlib
import io
import sys
import zipfile

import grpc
from smg_grpc_proto import vllm_engine_pb2_grpc
from smg_grpc_proto.generated import common_pb2

with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = vllm_engine_pb2_grpc.VllmEngineStub(channel)
    chunks = list(stub.GetTokenizer(common_pb2.GetTokenizerRequest(), timeout=60))

bundle = b"".join(chunk.data for chunk in chunks)
assert hashlib.sha256(bundle).hexdigest() == chunks[-1].sha256, "the digest is of something else"
with zipfile.ZipFile(io.BytesIO(bundle)) as files:
    files.extractall(sys.argv[2])
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(files.namelist()), files.namelist()
