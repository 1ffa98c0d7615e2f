#!/usr/bin/env bash
# npm @modelcontextprotocol/server-* 2026.8.31: three of four reference servers do not tell their release.
#
# Guess: `serverInfo.version` in the answer to `initialize` is the release of the package, so that a host can tell with
# it whether a server was updated.
# Seen (Node 20.20.2, 2026-11-30): of four packages of one release, 2026.8.31, server-everything calls itself 2.0.0,
# server-filesystem 0.2.0, server-memory 0.6.3, and only server-sequential-thinking 2026.8.31.
# What follows: a host that pins a server by its name and version does not see an update. GatheRing pins what tools are
# called by: the digest of each definition.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
npm init -y >/dev/null
names=(everything filesystem memory sequential-thinking)
npm install --silent --no-audit --no-fund $(printf '@modelcontextprotocol/server-%s@2026.8.31 ' "${names[@]}") >/dev/null
cat > ask.mjs <<'JS'
import { spawn } from 'node:child_process';
const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'finding', version: '1' } };
for (const name of process.argv.slice(2)) {
  const server = spawn(`node_modules/.bin/mcp-server-${name}`, name === 'filesystem' ? [process.cwd()] : [], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  server.stdin.write(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params }) + '\n');
  let text = '';
  for await (const part of server.stdout) {
    text += part;
    if (text.includes('\n')) break;
  }
  console.log(name, JSON.parse(text).result.serverInfo.version);
  server.stdin.end();
}
JS
node ask.mjs "${names[@]}" > seen
cat > expected <<'TEXT'
everything 2.0.0
filesystem 0.2.0
memory 0.6.3
sequential-thinking 2026.8.31
TEXT
diff expected seen
cat seen
