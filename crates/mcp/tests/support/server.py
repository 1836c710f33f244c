"""An MCP server over stdio, written by hand: as much of the protocol as the tests need, and its faults."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

MODE = sys.argv[1] if len(sys.argv) > 1 else "good"
LOCK = threading.Lock()
CANCELLED = []
GROWN = []


def send(message):
    with LOCK:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def noise(text):
    with LOCK:
        sys.stdout.write(text)
        sys.stdout.flush()


def schema(required=(), **properties):
    return {"type": "object", "properties": {k: {"type": v} for k, v in properties.items()}, "required": list(required)}


def tools():
    listed = [
        ("echo", schema(["text"], text="string")),
        ("sleep", schema(["seconds"], seconds="number")),
        ("environment", schema()),
        ("where", schema()),
        ("fail", schema()),
        ("refuse", schema()),
        ("protocol_error", schema()),
        ("picture", schema()),
        ("long", schema(["bytes"], bytes="integer")),
        ("die", schema()),
        ("cancelled", schema()),
        ("grow", schema()),
        ("nonsense", schema()),
        ("run_command", schema()),
        ("no good name", schema()),
    ]
    return listed + [(name, schema()) for name in GROWN]


def page(cursor):
    start = int(cursor or 0)
    listed = tools()
    part = [{"name": n, "description": f"does {n}", "inputSchema": s} for n, s in listed[start : start + 4]]
    result = {"tools": part}
    if start + 4 < len(listed) or MODE == "endless":
        result["nextCursor"] = str(start + 4 if MODE != "endless" else 0)
    return result


def text(said, error=False):
    return {"content": [{"type": "text", "text": said}], "isError": error}


def call(request):
    name, arguments = request["params"]["name"], request["params"].get("arguments", {})
    answer = lambda result: send({"id": request["id"], "result": result})
    if name == "echo":
        answer(text(arguments["text"]))
    elif name == "sleep":
        time.sleep(arguments["seconds"])
        answer(text(f"slept {arguments['seconds']}"))
    elif name == "environment":
        answer(text(json.dumps(dict(os.environ))))
    elif name == "where":
        answer(text(os.getcwd()))
    elif name == "fail":
        answer(text("it did not work", True))
    elif name == "refuse":
        send({"id": request["id"], "error": {"code": -32602, "message": "no such thing"}})
    elif name == "protocol_error":
        send({"id": request["id"], "error": {"code": -32603, "message": "broken inside"}})
    elif name == "picture":
        answer({"content": [{"type": "image", "data": "QUJD", "mimeType": "image/png"}, {"type": "text", "text": "look"}]})
    elif name == "long":
        answer(text("x" * arguments["bytes"]))
    elif name == "die":
        os._exit(3)
    elif name == "cancelled":
        answer(text(str(len(CANCELLED))))
    elif name == "grow":
        GROWN.append(f"grown_{len(GROWN)}")
        send({"method": "notifications/tools/list_changed"})
        answer(text("grown"))
    elif name == "nonsense":
        noise("this is no JSON\n\n{\"half\": \n[]\n42\nnull\n")
        answer({"what": "is this"})
    else:
        answer(text(f"called {name}"))


def initialize(request):
    if MODE == "modern":
        return send({"id": request["id"], "error": {"code": -32601, "message": "initialize is gone"}})
    if MODE == "noise":
        while True:
            noise("garbage " * 100 + "\n")
    version = request["params"]["protocolVersion"]
    capabilities = {"tools": {"listChanged": True}}
    answer = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": {"name": "test", "version": "1"}}
    if MODE == "garbage":
        noise("Welcome!\n\x00\x01\n{]\n")
    send({"id": request["id"], "result": answer})


def discover(request):
    result = {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
              "ttlMs": 0, "cacheScope": "private"}
    send({"id": request["id"], "result": result})


def flood():
    while True:
        send({"method": "notifications/message", "params": {"level": "info", "data": "spam"}})


def handle(line):
    message = json.loads(line)
    method = message.get("method")
    if MODE == "hang":
        return
    if method == "initialize":
        initialize(message)
    elif method == "server/discover" and MODE == "modern":
        discover(message)
    elif method == "notifications/initialized" and MODE == "flood":
        threading.Thread(target=flood, daemon=True).start()
    elif method == "notifications/cancelled":
        CANCELLED.append(message["params"]["requestId"])
    elif method == "tools/list":
        result = page(message.get("params", {}).get("cursor"))
        if MODE == "modern":
            result |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        send({"id": message["id"], "result": result})
    elif method == "tools/call":
        threading.Thread(target=call, args=(message,), daemon=True).start()
    elif "id" in message and method:
        send({"id": message["id"], "error": {"code": -32601, "message": f"no {method}"}})


print("I am the test server", file=sys.stderr)
if MODE == "dead":
    print("cannot go on", file=sys.stderr)
    sys.exit(7)
if MODE in ("stubborn", "orphan"):
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"])
    with open(sys.argv[2], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
elif len(sys.argv) > 2:
    with open(sys.argv[2], "w") as file:
        file.write(str(os.getpid()))
for line in sys.stdin:
    handle(line)
while MODE == "stubborn":
    time.sleep(1)
