"""A small server on either generation of the Python SDK: `own.py stdio` or `own.py http PORT`."""

import sys
from typing import Annotated

import anyio
from pydantic import BaseModel, Field

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("own")


Marked = Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]
Counted = Annotated[int, Field(json_schema_extra={"x-mcp-header": "Limit"})]


class Colour(BaseModel):
    """What is asked for."""

    colour: str


@server.tool()
def echo(message: str) -> str:
    """Says it again."""
    return message


@server.tool()
def marked(region: Marked, limit: Counted = 1, note: str = "") -> str:
    """Has parameters that are sent as headers."""
    return f"{region} {limit} {note}"


@server.tool()
def prints() -> str:
    """Prints before it answers."""
    print("hello from print")
    return "printed"


@server.tool()
async def slow(ctx: Context, steps: int) -> str:
    """Reports progress and never hurries."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps)
        await anyio.sleep(0.2)
    return "done"


@server.tool()
async def asks(ctx: Context) -> str:
    """Asks a person."""
    answered = await ctx.elicit(message="Which?", schema=Colour)
    return f"{answered.action} {answered.data.colour if answered.action == 'accept' else ''}".strip()


@server.tool()
def boom() -> str:
    """Fails."""
    raise ValueError("the reason")


if sys.argv[1] == "stdio":
    server.run()
elif hasattr(server, "settings") and hasattr(server.settings, "port"):
    server.settings.port = int(sys.argv[2])
    server.run("streamable-http")
else:
    server.run("streamable-http", port=int(sys.argv[2]))
