"""A scripted MCP server: `mcp_server.py DEFINITIONS [http]`. It speaks 2025-11-25, over stdio or on a free port that it
prints, and lists the tools of the file DEFINITIONS as they are at that moment. Each tool does what its name says."""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DEFINITIONS = sys.argv[1]


def note(method, params):
    print(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}), flush=True)


def tell(arguments, token):
    """Tells what it does as soon as the file `after` is there."""
    while not os.path.exists(arguments["after"]):
        time.sleep(0.01)
    message = f"with {os.environ.get('API_TOKEN')}"
    note("notifications/progress", {"progressToken": token, "progress": 1, "total": 2, "message": message})
    for entry in range(arguments.get("entries", 1)):
        note("notifications/message", {"level": "info", "data": {"entry": entry}})
    return "told"


def called(name, arguments, authorization, token):
    if name == "pid":
        return str(os.getpid())
    if name == "secret":
        return f"{os.environ.get('API_TOKEN')} {authorization}"
    if name == "die":
        print("the licence of hunter has ended", os.environ.get("API_TOKEN"), file=sys.stderr, flush=True)
        os._exit(7)
    if name == "hang":
        time.sleep(3600)
    if name == "flood":
        for _ in range(2000):
            print(json.dumps({"jsonrpc": "2.0", "method": "notifications/message",
                              "params": {"level": "info", "data": "many words " * 90}}), flush=True)
    if name == "tell":
        return tell(arguments, token)
    return json.dumps(arguments)


def result_of(message, authorization=None):
    method, params = message.get("method"), message.get("params") or {}
    if method == "initialize":
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted", "version": "1"}}
    if method == "ping":
        return {}
    if method == "tools/list":
        with open(DEFINITIONS, encoding="utf-8") as file:
            return {"tools": json.load(file)}
    if method == "tools/call":
        token = params.get("_meta", {}).get("progressToken")
        text = called(params["name"], params.get("arguments"), authorization, token)
        return {"content": [{"type": "text", "text": text}]}
    return None


def answer(message, authorization=None):
    result = result_of(message, authorization)
    if result is None:
        return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "unknown method"}}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def say(message):
    print(json.dumps(answer(message)), flush=True)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_request = "id" in message
        body = json.dumps(answer(message, self.headers.get("authorization"))).encode() if is_request else b""
        self.send_response(200 if is_request else 202)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send_error(405)

    do_DELETE = do_GET

    def log_message(self, *_):
        pass


if sys.argv[2:] == ["http"]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(listener.server_port, flush=True)
    listener.serve_forever()
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request and "method" in request:
        # A call must not keep others from being answered.
        threading.Thread(target=say, args=(request,), daemon=True).start()
os._exit(0)
