#!/usr/bin/env bash
# npm rrule-temporal 2.2.8: an occurrence in the gap of daylight saving is dropped, and COUNT is filled up behind it.
#
# Guess: RFC 5545 (3.3.10) reads a local time that does not exist with the offset before the gap, so that a daily
# event at 02:30 happens at 03:30 on that day and COUNT=3 ends on the third day; a date in EXDATE excludes that day.
# Seen (Node 20.20.2, 2026-11-29), Europe/Berlin: 29 March is left out, and a day is added at the end; an hourly rule
# leaves out the second 02:00 in autumn; EXDATE;VALUE=DATE excludes nothing, where recurring-ical-events 3.8.2
# excludes the day; UNTIL with a date alone includes that day, where recurring-ical-events ends before it.
# What follows: three readers of one calendar disagree, so GatheRing's docs must say which days a rule means, with the
# instants shown when a schedule is made; EXDATE by date excludes the day.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund rrule-temporal@2.2.8 @js-temporal/polyfill@0.5.1 >/dev/null
cat > seen.mjs <<'JS'
import { RRuleTemporal } from 'rrule-temporal';
const show = (name, ...lines) => {
  const found = new RRuleTemporal({ rruleString: lines.join('\n') }).all((_, n) => n < 10);
  console.log(`${name}: ${found.map((at) => at.toInstant().toString().slice(8, 16)).join(', ')}`);
};
show('gap', 'DTSTART;TZID=Europe/Berlin:20260328T023000', 'RRULE:FREQ=DAILY;COUNT=3');
show('overlap', 'DTSTART;TZID=Europe/Berlin:20261025T010000', 'RRULE:FREQ=HOURLY;COUNT=3');
show('exdate', 'DTSTART;TZID=Europe/Berlin:20260601T090000', 'RRULE:FREQ=DAILY;COUNT=3', 'EXDATE;VALUE=DATE:20260602');
show('until', 'DTSTART;TZID=Europe/Berlin:20260601T090000', 'RRULE:FREQ=DAILY;UNTIL=20260603');
JS
diff <(node seen.mjs) - <<'SEEN' && echo "as recorded"
gap: 28T01:30, 30T00:30, 31T00:30
overlap: 24T23:00, 25T00:00, 25T02:00
exdate: 01T07:00, 02T07:00, 03T07:00
until: 01T07:00, 02T07:00, 03T07:00
SEEN
