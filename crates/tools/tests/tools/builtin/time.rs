//! `now` and `wait`.

use std::time::Duration;

use serde_json::json;

use super::Fixture;

#[tokio::test]
async fn now_tells_one_moment_in_three_ways() {
    let tools = Fixture::new().await;
    let before = chrono::Utc::now().timestamp_millis();
    for (asked, zone) in [
        (json!({}), "UTC"),
        (json!({"timezone": "utc"}), "UTC"),
        (json!({"timezone": "asia/KATHMANDU"}), "Asia/Kathmandu"),
        (json!({"timezone": "America/New_York"}), "America/New_York"),
    ] {
        let told = tools.call("now", asked).await.unwrap();
        let unix_ms = told["unix_ms"].as_i64().unwrap();
        assert!((before..=chrono::Utc::now().timestamp_millis()).contains(&unix_ms), "{told}");
        for name in ["utc", "local"] {
            let moment = chrono::DateTime::parse_from_rfc3339(told[name].as_str().unwrap()).unwrap();
            assert_eq!(moment.timestamp_millis(), unix_ms, "{told}");
        }
        assert_eq!(told["timezone"], zone);
        assert!(told["utc"].as_str().unwrap().ends_with('Z'), "{told}");
        let offset = if zone == "Asia/Kathmandu" { "+05:45" } else { ":00" };
        assert!(told["local"].as_str().unwrap().ends_with(offset), "{told}");
    }
}

#[tokio::test]
async fn an_unknown_zone_is_a_problem_of_its_parameter() {
    let tools = Fixture::new().await;
    for (name, advice) in [
        ("Berlin", "/timezone: is not an IANA time zone: did you mean Europe/Berlin?"),
        ("New York", "/timezone: is not an IANA time zone: did you mean America/New_York?"),
        (
            "PST",
            "/timezone: is not an IANA time zone: write one such as Europe/Berlin or America/New_York, or",
        ),
        ("../../etc/passwd", "/timezone: is not an IANA time zone: write one"),
        ("12345678901234567890", "/timezone: is not an IANA time zone: write one"),
    ] {
        let problems = tools.tools.validate("now", &json!({"timezone": name})).unwrap_err();
        assert!(problems.to_string().starts_with(advice), "{name}: {problems}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_waits_take_as_long_as_one() {
    let tools = Fixture::new().await;
    let start = tokio::time::Instant::now();
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (tools, context) = (tools.tools.clone(), tools.context.clone());
        waits.spawn(async move { tools.call("wait", json!({"seconds": 1.0}), &context).await.unwrap() });
    }
    for waited in waits.join_all().await {
        assert_eq!(waited, json!({"waited_seconds": 1.0}));
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1100), "{took:?}");
}

#[tokio::test]
async fn a_wait_is_bounded() {
    let tools = Fixture::new().await;
    for seconds in [json!(-1), json!(3600.5), json!("1"), json!(null)] {
        let problems = tools.tools.validate("wait", &json!({"seconds": seconds})).unwrap_err();
        assert!(problems.to_string().starts_with("/seconds: must be"), "{problems}");
    }
    tools.call("wait", json!({"seconds": 0})).await.unwrap();
}
