#!/usr/bin/env bash
# npm cloudevents 10.0.0 (the official JavaScript SDK): an event changes on its way through the HTTP binding.
#
# Guess: what HTTP.structured() or HTTP.binary() writes, HTTP.toEvent() reads back as the same event.
# Seen (Node 20.20.2, 2026-11-29):
#   - data 0 in structured mode is read back as no data at all; data null in binary mode as the text "null";
#   - an object under application/vnd.x+json is an object in structured mode and a text in binary mode;
#   - an event without `time` gets the time of its arrival;
#   - an instant is cut to milliseconds, and its offset is lost;
#   - a subject is neither percent-encoded when written nor decoded when read, although the HTTP binding asks for it.
# What follows: GatheRing's receiver must not trust `time` to be the sender's, sends data as a JSON object, and
# writes the percent-encoded form of header values itself.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0 >/dev/null
cat > seen.mjs <<'JS'
import { CloudEvent, HTTP } from 'cloudevents';
const event = (more) => new CloudEvent({ id: '1', source: '/s', type: 't', ...more });
const back = (mode, more) => HTTP.toEvent(HTTP[mode](event(more)));
const show = (name, value) => console.log(`${name}: ${JSON.stringify(value)}`);
show('structured 0', back('structured', { data: 0 }).data ?? 'absent');
show('binary null', back('binary', { data: null }).data);
const vendor = { data: { a: 1 }, datacontenttype: 'application/vnd.x+json' };
show('vendor structured', back('structured', vendor).data);
show('vendor binary', back('binary', vendor).data);
const headers = { 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't', 'ce-specversion': '1.0', 'content-type': 'text/plain' };
show('time was made up', typeof HTTP.toEvent({ headers, body: 'x' }).time);
show('time', HTTP.binary(event({ time: '2026-03-29T01:30:00.123456+02:00' })).headers['ce-time']);
show('subject read', HTTP.toEvent({ headers: { ...headers, 'ce-subject': 'a%20b' }, body: 'x' }).subject);
show('subject written', HTTP.binary(event({ subject: 'a b%' })).headers['ce-subject']);
JS
diff <(node seen.mjs) - <<'SEEN' && echo "as recorded"
structured 0: "absent"
binary null: "null"
vendor structured: {"a":1}
vendor binary: "{\"a\":1}"
time was made up: "string"
time: "2026-03-28T23:30:00.123Z"
subject read: "a%20b"
subject written: "a b%"
SEEN
