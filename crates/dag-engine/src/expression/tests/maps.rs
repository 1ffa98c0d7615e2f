//! Expressions over maps: keys come in one order, in every evaluation and every process.

use super::*;

/// Tells a process of this test binary that it is the second one.
const SECOND_PROCESS: &str = "GATHERING_TEST_SECOND_PROCESS";

/// Enough keys for a random order to be the right one by chance in no run of the tests.
fn servers() -> Value {
    let names = ["kappa", "alpha", "zeta", "eta", "beta", "omega", "mu", "delta", "iota", "gamma"];
    names
        .iter()
        .enumerate()
        .map(|(port, name)| ((*name).to_owned(), json!(port)))
        .collect::<Map<_, _>>()
        .into()
}

const SORTED: [&str; 10] = ["alpha", "beta", "delta", "eta", "gamma", "iota", "kappa", "mu", "omega", "zeta"];

fn over_servers(source: &str) -> Result<Value, String> {
    evaluate(source, json!({ "m": servers() }))
}

#[test]
fn an_expression_over_a_map_has_one_value_in_every_evaluation_and_every_process() {
    for _ in 0..100 {
        for (source, expected) in [
            ("input.m.map(k, k)", json!(SORTED)),
            ("input.m.map(k, input.m[k])", json!([1, 4, 7, 3, 9, 8, 0, 6, 5, 2])),
            ("input.m.filter(k, k > 'd')", json!(&SORTED[2..])),
            ("input.m.map(k, input.m[k] > 6, k)", json!(["delta", "gamma", "iota"])),
            ("input.m.map(k, k)[0] in ['alpha', 'beta']", json!(true)),
            ("!(input.m.map(k, k)[0] in ['alpha', 'beta'])", json!(false)),
            ("[input].map(i, i.m.map(k, k))[0]", json!(SORTED)),
            ("['first'] + input.m", json!([&["first"][..], &SORTED[..]].concat())),
            ("'%s'.format([{'b': 1, 'a': 2}])", json!("{a: 2, b: 1}")),
            ("{'c': 1, 'a': 2, 'b': 3}.map(k, k).join(' ')", json!("a b c")),
            (
                "{true: 0, 'a': 0, 2u: 0, -1: 0, 10: 0, false: 0}.map(k, k)",
                json!([-1, 2, 10, false, true, "a"]),
            ),
            ("nodes.map(id, id)", json!([])),
            ("input == {'m': input.m} && input.m.all(k, k in input.m)", json!(true)),
            ("input.m.exists_one(k, k == 'mu') && input.m.exists(k, k == 'mu')", json!(true)),
        ] {
            assert_eq!(over_servers(source), Ok(expected), "{source}");
        }
        for (source, reason) in [
            // `map` stops at the first key without a value; `all` goes on, and names the last one.
            ("input.m.map(k, input[k])", "there is no `alpha`"),
            ("input.m.all(k, input[k] > 0)", "there is no `zeta`"),
            ("{input.m: 1}", "a value of type map cannot be a key"),
        ] {
            assert_eq!(over_servers(source), Err(reason.to_owned()), "{source}");
        }
    }
    if std::env::var_os(SECOND_PROCESS).is_none() {
        let test = std::thread::current().name().map(str::to_owned).unwrap();
        let process = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact"])
            .env(SECOND_PROCESS, "1")
            .output()
            .unwrap();
        assert!(process.status.success(), "{}", String::from_utf8_lossy(&process.stdout));
    }
}

#[test]
fn two_keys_that_are_one_in_json_are_refused() {
    for source in ["{1: 'a', '1': 'b'}", "[{'x': {true: 1, 'true': 2}}]"] {
        let reason = evaluate(source, Value::Null).unwrap_err();
        assert!(reason.starts_with("two keys of a map are both written `"), "{reason}");
    }
    assert_eq!(evaluate("{1: 'a', '2': 'b'}", Value::Null), Ok(json!({"1": "a", "2": "b"})));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_keys_of_any_map_come_sorted(fields in prop::collection::btree_map("[a-zäß ]{0,4}", any::<i32>(), 0..20)) {
        // A JSON object keeps the order in which it was written, here the opposite one.
        let object: Map<String, Value> = fields.iter().rev().map(|(k, v)| (k.clone(), json!(v))).collect();
        let input = json!({ "m": object });
        let keys: Vec<&String> = fields.keys().collect();
        let sorted = evaluate("input.m.map(k, k)", input.clone());
        prop_assert_eq!(sorted, Ok(json!(keys)));
        let values: Vec<&i32> = fields.values().collect();
        prop_assert_eq!(evaluate("input.m.map(k, input.m[k])", input.clone()), Ok(json!(values)));
        let text = evaluate("'%s'.format([input.m.filter(k, true)])", input.clone()).unwrap();
        prop_assert_eq!(text, json!(format!("[{}]", fields.keys().cloned().collect::<Vec<_>>().join(", "))));
        let written = evaluate("input.m", input).unwrap().to_string();
        prop_assert_eq!(written, serde_json::to_string(&fields).unwrap());
    }
}
