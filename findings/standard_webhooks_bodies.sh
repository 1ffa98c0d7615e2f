#!/usr/bin/env bash
# npm standardwebhooks 1.1.1 and PyPI standardwebhooks 1.1.0: a correctly signed body that is no JSON is not accepted.
#
# Guess: verify() judges id, time and signature; what the body says is the receiver's business, so that a signed text
# or empty body passes.
# Seen (Node 20.20.2, Python 3.11, 2026-11-29): both parse the body as JSON after the signature was found right. A text
# body raises the JSON parser's own error (SyntaxError, JSONDecodeError), which no handler of verification errors
# catches; an empty body passes in JavaScript (undefined) and raises in Python. In JavaScript a `Headers` object of
# fetch has "Missing required headers": only a plain object is read.
# What follows: GatheRing signs JSON bodies only, never an empty one, and its docs show the receiver's code with a plain
# object of headers.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund standardwebhooks@1.1.1 >/dev/null
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check standardwebhooks==1.1.0
cat > seen.mjs <<'JS'
import { Webhook } from 'standardwebhooks';
const webhook = new Webhook('whsec_' + Buffer.from('0123456789abcdef0123456789abcdef').toString('base64'));
const now = new Date();
const headers = (body) => ({
  'webhook-id': 'msg_1',
  'webhook-timestamp': String(Math.floor(now / 1000)),
  'webhook-signature': webhook.sign('msg_1', now, body),
});
const show = (name, body, sent) => {
  try {
    console.log(`npm ${name}: ${JSON.stringify(webhook.verify(body, sent))}`);
  } catch (error) {
    console.log(`npm ${name}: ${error.constructor.name}`);
  }
};
show('json', '{"a":1}', headers('{"a":1}'));
show('text', 'hello', headers('hello'));
show('empty', '', headers(''));
show('Headers', '{"a":1}', new Headers(headers('{"a":1}')));
JS
cat > seen.py <<'PY'
import base64
from datetime import datetime, timezone

from standardwebhooks.webhooks import Webhook

webhook = Webhook("whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode())
now = datetime.now(timezone.utc)
for name, body in (("json", '{"a":1}'), ("text", "hello"), ("empty", "")):
    signature = webhook.sign("msg_1", now, body)
    stamp = str(int(now.timestamp()))
    headers = {"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": signature}
    try:
        print(f"pypi {name}: {webhook.verify(body, headers)}")
    except Exception as error:
        print(f"pypi {name}: {type(error).__name__}")
PY
diff <(node seen.mjs && venv/bin/python seen.py) - <<'SEEN' && echo "as recorded"
npm json: {"a":1}
npm text: SyntaxError
npm empty: undefined
npm Headers: WebhookVerificationError
pypi json: {'a': 1}
pypi text: JSONDecodeError
pypi empty: JSONDecodeError
SEEN
