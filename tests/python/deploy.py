"""Checks the manifests under deploy/ as far as that goes without a cluster. Usage: deploy.py FOLDER

Kinds of Kubernetes itself are held against its own schemas (PyPI kubernetes-validate), those of the Gateway API and its inference
extension against what their references say of the fields used here; then whatever names something else must name something that is
there. Prints, as JSON, what only running programs can confirm: arguments, and the paths that are probed."""

import json
import pathlib
import plistlib
import sys

import jsonschema
import kubernetes_validate
import yaml
from smg.launch_router import parse_router_args

RELEASE = "1.34"

PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 253}


def fields(properties, required=()):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


OTHERS = {
    # gateway-api-inference-extension.sigs.k8s.io/reference/spec
    ("inference.networking.k8s.io/v1", "InferencePool"): fields(
        {
            "selector": fields({"matchLabels": {"type": "object", "minProperties": 1}}, ["matchLabels"]),
            "targetPorts": {"type": "array", "minItems": 1, "maxItems": 8, "items": fields({"number": PORT}, ["number"])},
            "appProtocol": {"enum": ["http", "kubernetes.io/h2c"]},
            "endpointPickerRef": fields(
                {
                    "group": {"type": "string"},
                    "kind": {"type": "string"},
                    "name": NAME,
                    "port": fields({"number": PORT}, ["number"]),
                    "failureMode": {"enum": ["FailOpen", "FailClose"]},
                },
                ["name", "port"],
            ),
        },
        ["selector", "targetPorts", "endpointPickerRef"],
    ),
    # gateway-api.sigs.k8s.io/reference/spec
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): fields(
        {
            "parentRefs": {"type": "array", "minItems": 1, "items": fields({"name": NAME, "namespace": NAME}, ["name"])},
            "rules": {
                "type": "array",
                "items": fields(
                    {
                        "matches": {
                            "type": "array",
                            "items": fields(
                                {
                                    "path": fields(
                                        {
                                            "type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]},
                                            "value": {"type": "string", "pattern": "^/"},
                                        },
                                        ["value"],
                                    )
                                }
                            ),
                        },
                        "backendRefs": {
                            "type": "array",
                            "items": fields(
                                {"group": {"type": "string"}, "kind": {"type": "string"}, "name": NAME, "port": PORT},
                                ["name"],
                            ),
                        },
                        "timeouts": fields({"request": {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}}),
                    }
                ),
            },
        },
        ["parentRefs", "rules"],
    ),
}


def seconds(args, flag):
    return next(int(arg.split("=")[1]) for arg in args if arg.startswith(flag + "="))


def check_pod(pod, things, where):
    """What a pod names of itself and of others."""
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert len(set(ports.values())) == len(ports), f"{where}: a port twice"
    probes = {}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe := container.get(kind):
            if http := probe.get("httpGet"):
                assert http["port"] in ports, f"{where}: {kind} asks an unnamed port"
                probes[kind] = http["path"]
            else:
                assert probe["grpc"]["port"] in ports.values(), f"{where}: {kind} asks a port that is not there"
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
    assert mounts == set(volumes), f"{where}: {mounts} are mounted of {set(volumes)}"
    for volume in volumes.values():
        if config := volume.get("configMap"):
            assert ("ConfigMap", config["name"]) in things, f"{where}: there is no {config}"
    if account := pod.get("serviceAccountName"):
        assert ("ServiceAccount", account) in things, f"{where}: there is no {account}"
    wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    return container, ports, probes, pod["terminationGracePeriodSeconds"] - wait


def main(folder):
    documents = []
    for path in sorted((folder / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            where = f"{path.name}: {document['kind']} {document['metadata']['name']}"
            if schema := OTHERS.get((document["apiVersion"], document["kind"])):
                try:
                    jsonschema.validate(document["spec"], schema)
                except jsonschema.ValidationError as error:
                    raise AssertionError(f"{where}: {error.message} at {error.json_path}") from None
            else:
                kubernetes_validate.validate(document, RELEASE, strict=True)
            documents.append((where, document))
    things = {(document["kind"], document["metadata"]["name"]): document for _, document in documents}
    assert len(things) == len(documents), "two things of one name"

    pods = {}
    for where, document in documents:
        if document["kind"] == "Deployment":
            template = document["spec"]["template"]
            labels = template["metadata"]["labels"]
            assert document["spec"]["selector"]["matchLabels"].items() <= labels.items(), f"{where}: selects others"
            container, ports, probes, grace = check_pod(template["spec"], things, where)
            notes = template["metadata"].get("annotations", {})
            if "prometheus.io/port" in notes:
                assert int(notes["prometheus.io/port"]) in ports.values(), f"{where}: metrics on another port"
            pods[document["metadata"]["name"]] = (labels, container, ports, probes, grace, notes)

    def selected(labels):
        return [pod for pod in pods.values() if labels.items() <= pod[0].items()]

    for where, document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            (pod,) = selected(spec["selector"])
            for port in spec["ports"]:
                assert port["targetPort"] in pod[2], f"{where}: {port['targetPort']} is nobody's port"
        elif document["kind"] == "PodDisruptionBudget":
            assert selected(spec["selector"]["matchLabels"]), f"{where}: selects nothing"
        elif document["kind"] == "RoleBinding":
            assert ("Role", document["roleRef"]["name"]) in things, where
            assert all((subject["kind"], subject["name"]) in things for subject in document["subjects"]), where
        elif document["kind"] == "InferencePool":
            (pod,) = selected(spec["selector"]["matchLabels"])
            assert [port["number"] for port in spec["targetPorts"]] == [pod[2]["http"]], f"{where}: not the HTTP port"
            picker = spec["endpointPickerRef"]
            service = things[picker["kind"], picker["name"]]
            assert picker["port"]["number"] in [port["port"] for port in service["spec"]["ports"]], where
        elif document["kind"] == "HTTPRoute":
            backends = [backend for rule in spec["rules"] for backend in rule["backendRefs"]]
            assert backends and all((backend["kind"], backend["name"]) in things for backend in backends), where

    _, worker, ports, probes, grace, notes = pods["vllm-mlx"]
    assert grace >= seconds(worker["args"], "--timeout") + 10, "a request may outlive its pod"
    assert ports == {"http": seconds(worker["args"], "--port"), "grpc": seconds(worker["args"], "--grpc-port")}, ports

    _, gateway, gateway_ports, gateway_probes, grace, _ = pods["smg"]
    parsed = parse_router_args([arg.replace("$(NAMESPACE)", "here") for arg in gateway["args"]])
    assert gateway["command"] == ["smg", "launch"] and parsed.policy == "cache_aware" and parsed.service_discovery
    assert (parsed.port, parsed.prometheus_port) == (gateway_ports["http"], gateway_ports["metrics"])
    assert parsed.service_discovery_port == ports["grpc"] and parsed.service_discovery_namespace == "here"
    assert selected(parsed.selector) == [pods["vllm-mlx"]], parsed.selector
    assert grace >= parsed.shutdown_grace_period_secs >= seconds(worker["args"], "--timeout"), "answers may be cut off"

    _, picker, picker_ports, _, _, _ = pods["vllm-mlx-epp"]
    assert ("InferencePool", next(a.split("=")[1] for a in picker["args"] if a.startswith("--pool-name="))) in things
    assert picker_ports["grpc"] == seconds(picker["args"], "--grpc-port")
    assert picker_ports["grpc-health"] == seconds(picker["args"], "--grpc-health-port")
    config = yaml.safe_load(things["ConfigMap", "vllm-mlx-epp"]["data"]["picker.yaml"])
    named = {plugin.get("name", plugin["type"]) for plugin in config["plugins"]}
    used = {use["pluginRef"] for profile in config["schedulingProfiles"] for use in profile["plugins"]}
    assert used == named, f"{used} of {named}"

    plist = plistlib.loads((folder / "launchd/vllm-mlx.plist").read_bytes())
    assert plist["ExitTimeOut"] >= seconds(worker["args"], "--timeout") + 10 and plist["RunAtLoad"] is True
    told = {
        "worker": {"args": worker["args"], "probes": probes, "metrics": notes["prometheus.io/path"]},
        "gateway": {"probes": gateway_probes},
        "launchd": plist["ProgramArguments"],
    }
    print(json.dumps(told))


main(pathlib.Path(sys.argv[1]))
