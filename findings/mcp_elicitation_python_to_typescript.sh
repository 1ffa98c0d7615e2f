#!/usr/bin/env bash
# PyPI mcp 1.30.0 and 2.3.0 with npm @modelcontextprotocol/sdk 1.32.2: forms that one SDK sends and the other cannot read.
#
# Guess: a form that Python's SDK accepts in `ctx.elicit` reaches the handler of TypeScript's client, as both are SDKs of
# one protocol; and a field with a fixed choice, which the protocol has, can be asked for.
# Seen (Python 3.11.2, Node 20.20.2, 2026-12-01): from 1.30.0 a form with an optional field or a list of strings is sent
# as `anyOf` with null and as a list without choices. TypeScript's client answers such a question with an error before any
# handler sees it, and the call fails. A field with a choice (`Literal`) is refused by 1.30.0 itself. 2.3.0 sends the
# optional field and the choice well, and still sends the list of strings that nobody is shown. A default is filled in.
# What follows: a tool that works in one host fails in another. GatheRing shows every form whose schema is valid JSON
# Schema, and checks the answer by it.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @modelcontextprotocol/sdk@1.32.2 >/dev/null
for version in 1.30.0 2.3.0; do
  python3 -m venv "python-$version"
  "python-$version/bin/pip" install --quiet --disable-pip-version-check "mcp==$version"
done
cat > server.py <<'PY'
from typing import Literal, Optional

from pydantic import BaseModel

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("asking")


class Plain(BaseModel):
    colour: str


class Defaulted(BaseModel):
    number: int = 3


class Optionally(BaseModel):
    colour: Optional[str] = None


class Several(BaseModel):
    colours: list[str]


class Choice(BaseModel):
    colour: Literal["red", "blue"]


FORMS = {"plain": Plain, "defaulted": Defaulted, "optional": Optionally, "several": Several, "choice": Choice}


@server.tool()
async def ask(ctx: Context, form: str) -> str:
    """Asks a person."""
    answered = await ctx.elicit(message=form, schema=FORMS[form])
    return f"{answered.action} {answered.data}"


server.run()
PY
cat > client.mjs <<'JS'
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
const contents = {
  plain: { colour: 'red' }, defaulted: {}, optional: {}, several: { colours: ['red'] }, choice: { colour: 'red' },
};
const client = new Client({ name: 'finding', version: '1' }, { capabilities: { elicitation: { form: {} } } });
let wasAsked;
client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
  wasAsked = true;
  return { action: 'accept', content: contents[params.message] };
});
await client.connect(new StdioClientTransport({ command: process.argv[2], args: ['server.py'], stderr: 'ignore' }));
for (const form of Object.keys(contents)) {
  wasAsked = false;
  const { isError, content } = await client.callTool({ name: 'ask', arguments: { form } });
  console.log(form, wasAsked ? 'asked' : 'not asked', isError ? 'failed' : content[0].text);
}
await client.close();
JS
for version in 1.30.0 2.3.0; do
  echo "mcp $version"
  node client.mjs "python-$version/bin/python"
done > seen
cat > expected <<'TEXT'
mcp 1.30.0
plain asked accept colour='red'
defaulted asked accept number=3
optional not asked failed
several not asked failed
choice not asked failed
mcp 2.3.0
plain asked accept colour='red'
defaulted asked accept number=3
optional asked accept colour=None
several not asked failed
choice asked accept colour='red'
TEXT
diff expected seen
cat seen
