"""Parses a server's /metrics with Prometheus's own client library. Usage: prometheus.py URL"""

import math
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1]) as response:
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4"), response.headers["content-type"]
    text = response.read().decode()

families = list(text_string_to_metric_families(text))
by_name = {family.name: family for family in families}
assert len(by_name) == len(families), "a family is written twice"

for family in families:
    assert family.documentation and family.type in ("counter", "gauge", "histogram"), family
    seen = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
    assert seen and len(set(seen)) == len(seen), f"{family.name} has a sample twice, or none"
    if family.type == "histogram":
        buckets = {}
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k != "le"}
            series = buckets.setdefault(tuple(sorted(labels.items())), {"ends": [], "count": None})
            if sample.name.endswith("_bucket"):
                series["ends"].append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_count"):
                series["count"] = sample.value
        for labels, series in buckets.items():
            counts = [count for _, count in sorted(series["ends"])]
            assert counts == sorted(counts) and max(series["ends"])[0] == math.inf, (family.name, labels)
            assert counts[-1] == series["count"], (family.name, labels)

WANTED = """
vllm:num_requests_running vllm:num_requests_waiting vllm:kv_cache_usage_perc vllm:prefix_cache_queries
vllm:prefix_cache_hits vllm:num_preemptions vllm:prompt_tokens vllm:generation_tokens vllm:iteration_tokens_total
vllm:request_success vllm:request_prompt_tokens vllm:request_generation_tokens vllm:request_params_n vllm:request_params_max_tokens
vllm:time_to_first_token_seconds vllm:inter_token_latency_seconds vllm:e2e_request_latency_seconds
vllm:request_queue_time_seconds vllm:request_prefill_time_seconds vllm:request_decode_time_seconds
vllm:request_inference_time_seconds vllm:cache_config_info vllm_mlx_http_requests vllm_mlx_model_loaded
vllm_mlx_scheduler_running_requests vllm_mlx_metal_memory_bytes vllm_mlx_engine_stalled
""".split()
missing = [name for name in WANTED if name not in by_name]
assert not missing, missing
assert by_name["vllm:generation_tokens"].samples[0].labels == {"model_name": "smollm2", "engine": "0"}
print(f"parsed {len(families)} families")
