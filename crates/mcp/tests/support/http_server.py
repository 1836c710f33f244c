"""An MCP server over streamable HTTP, written by hand, and its faults. Prints its port. The path is the mode."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SESSIONS = set()
CANCELLED = []
ENDED = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(405)

    def do_DELETE(self):
        ENDED.append(self.headers.get("Mcp-Session-Id"))
        self.answer(200)

    def do_POST(self):
        mode = self.path.strip("/")
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method = message.get("method", "")
        if mode == "redirect":
            return self.answer(307, Location="http://elsewhere.example/mcp")
        if mode == "locked" and self.headers.get("Authorization") != "Bearer open sesame":
            return self.answer(401, b"who are you?", "text/plain", WWW_Authenticate="Bearer")
        if mode == "page":
            return self.answer(200, b"<html>welcome</html>", "text/html")
        if mode == "hang":
            return time.sleep(600)
        if mode == "error":
            return self.answer(500, b"no " * 1000, "text/plain")
        if mode == "cut":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"jsonrpc"')
            self.close_connection = True
            return
        if mode == "huge":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.close_connection = True
            while True:
                self.wfile.write(b" " * (1 << 20))
        if method == "notifications/cancelled":
            CANCELLED.append(message["params"]["requestId"])
        if "id" not in message:
            return self.answer(202)
        if mode == "session" and method != "initialize" and self.headers.get("Mcp-Session-Id") not in SESSIONS:
            return self.answer(404)
        result, headers = {}, {}
        if method == "initialize":
            result = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                      "serverInfo": {"name": "test", "version": "1"}}
            if mode == "session":
                SESSIONS.add(f"session-{len(SESSIONS)}")
                headers["Mcp_Session_Id"] = f"session-{len(SESSIONS) - 1}"
        elif method == "tools/list":
            names = ["sleep", "cancelled", "ended", "forget", "headers", "die"]
            result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}
        elif method == "tools/call":
            result = {"content": [{"type": "text", "text": self.call(message["params"]["name"])}]}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        if mode == "stream":
            return self.answer(200, b": hello\n\nevent: message\ndata: " + body + b"\n\n", "text/event-stream", **headers)
        self.answer(200, body, **headers)

    def call(self, name):
        if name == "sleep":
            time.sleep(60)
        if name == "forget":
            SESSIONS.clear()
            SESSIONS.add("session-of-others")
        if name == "die":
            threading.Thread(target=server.shutdown).start()
            server.socket.close()
        told = {"cancelled": str(len(CANCELLED)), "ended": str(len(ENDED)), "headers": self.headers.get("X-Key", "none")}
        return told.get(name, name)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
