"""Tools by the official MCP SDK, over stdio or, given a port, over streamable HTTP."""

import sys

from mcp.server import MCPServer

server = MCPServer("official")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def broken() -> str:
    """Fails always."""
    raise ValueError("as it should")


if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]), json_response="--json" in sys.argv)
else:
    server.run("stdio")
