//! Time zones in expressions.

use super::*;

fn reason(source: &str) -> String {
    Expression::compile(source).unwrap().evaluate(&scope()).unwrap_err().reason
}

#[test]
fn zones_have_the_rules_of_2026() {
    // British Columbia does not set its clocks back in autumn 2026.
    assert_eq!(value("timestamp('2026-12-01T16:00:00Z').getHours('America/Vancouver')"), json!(9));
    assert_eq!(value("timestamp('2025-12-01T16:00:00Z').getHours('America/Vancouver')"), json!(8));
}

#[test]
fn every_part_of_a_time_is_told_on_the_clocks_of_a_zone() {
    let at = "timestamp('2026-12-31T23:59:58.125Z')";
    for (method, in_utc, in_kathmandu) in [
        ("getFullYear", 2026, 2027),
        ("getMonth", 11, 0),
        ("getDayOfYear", 364, 0),
        ("getDayOfMonth", 30, 0),
        ("getDate", 31, 1),
        ("getDayOfWeek", 4, 5),
        ("getHours", 23, 5),
        ("getMinutes", 59, 44),
        ("getSeconds", 58, 58),
        ("getMilliseconds", 125, 125),
    ] {
        for utc in ["", "'UTC'", "''", "'00:00'"] {
            assert_eq!(value(&format!("{at}.{method}({utc})")), json!(in_utc), "{method}({utc})");
        }
        for there in ["'Asia/Kathmandu'", "'+05:45'", "'Asia/' + 'Kathmandu'"] {
            assert_eq!(value(&format!("{at}.{method}({there})")), json!(in_kathmandu), "{method}({there})");
        }
    }
    assert_eq!(value("['UTC', 'Asia/Tokyo'].map(z, timestamp(0).getHours(z))"), json!([0, 9]));
}

#[test]
fn what_is_no_zone_or_no_timestamp_is_told_as_before() {
    assert_eq!(value("duration('90m').getMinutes()"), json!(90));
    assert!(reason("timestamp(0).getHours('Mars/Base')").contains("unknown time zone Mars/Base"));
    for wrong in ["timestamp(0).getHours(1)", "duration('1h').getHours('UTC')", "'x'.getDate('UTC')"] {
        let reason = reason(wrong);
        assert!(!reason.contains('@') && reason.contains("overload"), "{wrong}: {reason}");
    }
}
