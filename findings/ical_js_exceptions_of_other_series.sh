#!/usr/bin/env bash
# npm ical.js 2.2.1: a moved occurrence of one series changes the other series of the calendar.
#
# Guess: a VEVENT with a RECURRENCE-ID replaces an occurrence of the series with the same UID (RFC 5545, 3.8.4.4), and
# no other.
# Seen (Node 20.20.2, 2026-11-30): `new ICAL.Event(component)` relates every exception of the calendar to every series.
# Where a tax day is moved from 1 to 3 July, the rent of 1 July is gone, and the tax appears in its place. With
# RANGE=THISANDFUTURE, New Year of all later years becomes the Tuesday that another series was moved to, a day late.
# The option `strictExceptions` does not help: it throws for the first exception of another UID. ical-expander 3.2.0,
# which is made on ical.js, shows the same for RANGE=THISANDFUTURE.
# What follows: a holiday calendar with one moved entry shows other days in programs that use this library than in
# GatheRing, which goes by UID. The days that a schedule leaves out are shown in its answer.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund ical.js@2.2.1 >/dev/null
cat > seen.mjs <<'JS'
import ICAL from 'ical.js';
const event = (...lines) => ['BEGIN:VEVENT', 'DTSTAMP:20260101T000000Z', ...lines, 'END:VEVENT'];
const calendar = (...events) =>
  ['BEGIN:VCALENDAR', 'VERSION:2.0', 'PRODID:-//example//finding//EN', ...events.flat(), 'END:VCALENDAR'].join('\r\n');
function days(text, options) {
  const found = [];
  for (const component of new ICAL.Component(ICAL.parse(text)).getAllSubcomponents('vevent')) {
    if (component.hasProperty('recurrence-id')) continue;
    const series = new ICAL.Event(component, options);
    const times = series.iterator();
    for (let time = times.next(); time; time = times.next()) {
      const { item, startDate } = series.getOccurrenceDetails(time);
      found.push(`${startDate} ${item.summary}`);
    }
  }
  return found.join(', ');
}
const moved = calendar(
  event('UID:a', 'DTSTART;VALUE=DATE:20260601', 'RRULE:FREQ=MONTHLY;COUNT=3', 'SUMMARY:rent'),
  event('UID:b', 'DTSTART;VALUE=DATE:20260701', 'RRULE:FREQ=MONTHLY;COUNT=2', 'SUMMARY:tax'),
  event('UID:b', 'RECURRENCE-ID;VALUE=DATE:20260701', 'DTSTART;VALUE=DATE:20260703', 'SUMMARY:tax (moved)'),
);
const range = calendar(
  event('UID:a', 'DTSTART;VALUE=DATE:20260101', 'RRULE:FREQ=YEARLY;COUNT=2', 'SUMMARY:New Year'),
  event('UID:b', 'DTSTART;VALUE=DATE:20250113', 'RRULE:FREQ=WEEKLY;COUNT=2', 'SUMMARY:Monday'),
  event('UID:b', 'RECURRENCE-ID;VALUE=DATE;RANGE=THISANDFUTURE:20250120', 'DTSTART;VALUE=DATE:20250121', 'SUMMARY:Tuesday'),
);
console.log('moved:', days(moved));
console.log('range:', days(range));
try {
  console.log('strict:', days(moved, { strictExceptions: true }));
} catch (error) {
  console.log('strict:', error.message);
}
JS
diff <(node seen.mjs) - <<'SEEN' && echo "as recorded"
moved: 2026-06-01 rent, 2026-07-03 tax (moved), 2026-08-01 rent, 2026-07-03 tax (moved), 2026-08-01 tax
range: 2026-01-02 Tuesday, 2027-01-02 Tuesday, 2025-01-13 Monday, 2025-01-21 Tuesday
strict: attempted to relate unrelated exception
SEEN
