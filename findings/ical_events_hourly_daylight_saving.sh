#!/usr/bin/env bash
# PyPI recurring-ical-events 3.8.2 (on icalendar 7.3.2): an hourly rule meets daylight saving.
#
# Guess: FREQ=HOURLY gives one occurrence for each hour that passes, and COUNT=3 gives three occurrences.
# Seen (Python 3.11, 2026-11-29), Europe/Berlin:
#   - in spring two occurrences are the same instant: 02:00+01:00, which does not exist, and 03:00+02:00 are 01:00Z;
#   - in autumn the second 02:00 is left out, so that two hours pass without an occurrence;
#   - where DTSTART is not itself an occurrence of the rule, it is added and not counted: COUNT=3 gives four.
# What follows: a schedule by RRULE must be keyed by the instant and not by the local time, or it fires twice; DTSTART
# outside of its rule is undefined in RFC 5545 and is refused.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check recurring-ical-events==3.8.2 icalendar==7.3.2
cat > seen.py <<'PY'
from datetime import datetime, timezone

import icalendar
import recurring_ical_events


def occurrences(rule):
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:x", "BEGIN:VEVENT", "UID:1", "DTSTAMP:20260101T000000Z"]
    text = "\r\n".join([*lines, *rule, "SUMMARY:x", "END:VEVENT", "END:VCALENDAR", ""])
    calendar = recurring_ical_events.of(icalendar.Calendar.from_ical(text))
    found = calendar.between((2026, 3, 1), (2026, 12, 1))
    return [event["DTSTART"].dt for event in found]


def instants(name, *rule):
    shown = [at.astimezone(timezone.utc).strftime("%d %H:%MZ") for at in occurrences(rule)]
    print(f"{name}: {', '.join(shown)}")


instants("spring", "DTSTART;TZID=Europe/Berlin:20260329T010000", "RRULE:FREQ=HOURLY;COUNT=4")
instants("autumn", "DTSTART;TZID=Europe/Berlin:20261025T010000", "RRULE:FREQ=HOURLY;COUNT=4")
outside = occurrences(("DTSTART;TZID=Europe/Berlin:20260602T090000", "RRULE:FREQ=WEEKLY;BYDAY=MO;COUNT=3"))
print("COUNT=3 gives", len(outside))
PY
diff <(venv/bin/python seen.py) - <<'SEEN' && echo "as recorded"
spring: 29 00:00Z, 29 01:00Z, 29 01:00Z, 29 02:00Z
autumn: 24 23:00Z, 25 00:00Z, 25 02:00Z, 25 03:00Z
COUNT=3 gives 4
SEEN
