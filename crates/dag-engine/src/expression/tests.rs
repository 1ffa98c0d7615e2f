//! The values of expressions, and the bounds of their cost.

mod maps;
mod zones;

use super::*;
use proptest::prelude::*;
use serde_json::{Map, json};

/// A scope of literals.
pub(crate) struct Fixed {
    pub(crate) input: Value,
    pub(crate) nodes: Value,
}

impl Scope for Fixed {
    fn input(&self) -> &Value {
        &self.input
    }
    fn node(&self, id: &str) -> Option<Value> {
        self.nodes.get(id).cloned()
    }
    fn node_ids(&self) -> Vec<String> {
        self.nodes.as_object().map(|nodes| nodes.keys().cloned().collect()).unwrap_or_default()
    }
    fn run(&self) -> Value {
        json!({"id": "r"})
    }
}

pub(crate) fn scope() -> Fixed {
    Fixed {
        input: json!({"n": 41, "list": [3, 1, 2], "big": vec![1; 2000]}),
        nodes: json!({
            "a": {"state": "succeeded", "output": {"text": "hi", "x": 1.5}},
            "b-c": {"state": "failed", "error": {"message": "no"}},
        }),
    }
}

fn value(source: &str) -> Value {
    Expression::compile(source).unwrap().evaluate(&scope()).unwrap()
}

fn problems(source: &str) -> Vec<String> {
    Expression::compile(source).unwrap_err().into_iter().map(|problem| problem.message).collect()
}

#[test]
fn over_an_event_the_event_alone_is_in_scope() {
    let event = json!({"type": "order.paid", "data": {"total": 12}});
    let over = |source: &str| Expression::compile_over_event(source).unwrap().evaluate_over_event(&event);
    assert_eq!(over("event.data.total > 10 && event.type.startsWith('order.')"), Ok(json!(true)));
    assert_eq!(over("event['data'].total + 1"), Ok(json!(13)));
    assert!(over("event.data.absent == 1").is_err());
    for source in ["input.n > 1", "nodes.a.output", "run.id", "item", "index", "others"] {
        let problems = Expression::compile_over_event(source).unwrap_err();
        assert!(problems[0].message.ends_with("in scope is `event`"), "{source}: {}", problems[0].message);
    }
    assert!(problems("event.type")[0].starts_with("there is no variable `event`"));
}

#[test]
fn values_keep_their_types() {
    assert_eq!(value("input.n + 1"), json!(42));
    assert_eq!(value("nodes.a.output.x * 2.0"), json!(3.0));
    assert_eq!(value("nodes.a.output.text + '!'"), json!("hi!"));
    assert_eq!(value("nodes['b-c'].error.message"), json!("no"));
    assert_eq!(value("{'b': 1, 'a': [true, null]}").to_string(), r#"{"a":[true,null],"b":1}"#);
    assert_eq!(value("input.list.map(x, x * 2)"), json!([6, 2, 4]));
    assert_eq!(value("input.list.filter(x, x > 1).size()"), json!(2));
    assert_eq!(value("'a,b'.split(',').join('-')"), json!("a-b"));
    assert_eq!(value("math.greatest(input.list)"), json!(3));
    assert_eq!(value("has(nodes.a.error)"), json!(false));
    assert_eq!(value("nodes.map(id, nodes[id].state).size()"), json!(2));
    assert_eq!(value("run.id"), json!("r"));
}

#[test]
fn an_expression_without_a_value_is_found_when_compiled() {
    assert!(problems("1 +")[0].starts_with("not an expression: "));
    assert_eq!(
        problems("inptu.n + outptu"),
        [
            "there is no variable `inptu`: in scope are `input`, `nodes` and `run`",
            "there is no variable `outptu`: in scope are `input`, `nodes` and `run`",
        ]
    );
    assert_eq!(problems("sizee(input)"), ["there is no function `sizee`"]);
    assert_eq!(problems("run.idd + run.project_id"), ["`run` has no `idd`: it has id, project_id"]);
    assert_eq!(problems(" "), ["an expression must not be empty"]);
    assert!(Expression::compile(&"1+".repeat(MAX_SOURCE_BYTES)).is_err());
    for nested in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("!", "true", ""),
        ("-", "input.n", ""),
        ("true ? 1 : ", "1", ""),
        ("input.n + ", "1", ""),
        ("a.", "b", ""),
        ("{'a':", "1", "}"),
    ] {
        for times in [20, 40, 90, MAX_SOURCE_BYTES / (nested.0.len() + nested.2.len()) - 10] {
            let source = format!("{}{}{}", nested.0.repeat(times), nested.1, nested.2.repeat(times));
            let _neither_hangs_nor_overflows =
                Expression::compile(&source).map(|deep| deep.evaluate(&scope()));
        }
    }
}

#[test]
fn named_nodes_are_found() {
    let expression = Expression::compile("nodes.a.output.text + string(nodes['b-c'].state)").unwrap();
    assert_eq!(expression.node_ids().collect::<Vec<_>>(), ["a", "b-c"]);
    assert!(!expression.uses.all_nodes);
}

#[test]
fn the_parts_of_the_input_that_are_read_are_found() {
    let read = |source: &str| -> Vec<String> {
        let expression = Expression::compile(source).unwrap();
        expression.input_paths().map(|path| path.join("/")).collect()
    };
    assert_eq!(read("input.a.b == input[\"c\"] && has(input.d)"), ["a/b", "c", "d"]);
    assert_eq!(read("input"), [""]);
    assert_eq!(read("input.list[0].name + input[input.key]"), ["", "key", "list"]);
    assert_eq!(read("input.list.map(input, input.a)"), ["list"], "`input` is a variable of its own there");
    assert_eq!(read("nodes.a.output.input"), [""; 0]);
}

#[test]
fn evaluation_is_bounded() {
    let expression = Expression::compile("input.big.all(a, input.big.all(b, a == b))").unwrap();
    let error = expression.evaluate(&scope()).unwrap_err();
    assert!(error.to_string().contains("more than 250000 iterations"), "{error}");
}

fn evaluate(source: &str, input: Value) -> Result<Value, String> {
    let scope = Fixed { input, nodes: json!({}) };
    Expression::compile(source).unwrap().evaluate(&scope).map_err(|error| error.reason)
}

#[test]
fn nothing_is_created_before_it_is_charged() {
    let doubled = |times: usize| format!("['xxxxxxxxxxxxxxxx']{}", ".map(a, a + a)".repeat(times));
    let lists = |times: usize| format!("[1, 2]{}", ".map(a, [a, a, a, a])".repeat(times));
    let text = json!({"s": "x".repeat(2_000_000), "l": vec!["y".repeat(100); 1000], "n": 7});
    for source in [
        "'x'".to_owned() + &".replace('', 'xxxxxxxxx')".repeat(10),
        doubled(40),
        lists(20),
        "input.l.all(a, input.l.all(b, (input.s + 'x').size() > 0))".to_owned(),
        "input.l.all(a, input.l.all(b, [input.s, input.s].size() > 0)) || true".to_owned(),
        "input.l.all(a, input.l.all(b, {'k': input.s}.size() > 0))".to_owned(),
        "input.l.exists(a, input.l.exists(b, input.s - 1 == 2))".to_owned(),
        "input.l.exists(a, input.l.exists(b, input.?s.hasValue() && a == b + 'z'))".to_owned(),
        "input.l.all(a, input.s.contains('z' + a) || true)".to_owned(),
        "input.l.all(a, !input.s.matches('z' + a))".to_owned(),
        "input.s.lastIndexOf(input.s.substring(0, 1000000) + 'y')".to_owned(),
        "input.s.split('')".to_owned(),
        "lists.range(1000000).map(x, lists.range(1000))".to_owned(),
        "input.l.join(input.s)".to_owned(),
        "lists.range(100000).distinct()".to_owned(),
        format!("input.l.all(a, input.l.all(b, [{}].size() > 0))", "1,".repeat(2000) + "1"),
    ] {
        let reason = evaluate(&source, text.clone()).unwrap_err();
        assert_eq!(reason, "it reads and makes more than 67108864 bytes", "{source:.100}");
    }
    let fraction = "input.l.exists(a, input.l.exists(b, input.l[0.5] == 2))";
    assert_eq!(evaluate(fraction, text).unwrap_err(), "more than 250000 iterations");
    let large = json!({ "list": vec![0; 3_000_000] });
    assert_eq!(evaluate("input.list[0]", large).unwrap_err(), "it reads and makes more than 67108864 bytes");
}

#[test]
fn a_charged_expression_has_the_same_value() {
    for (source, expected) in [
        ("'a,b,c'.split(',')", json!(["a", "b", "c"])),
        ("'a,b,c'.split(',', 2)", json!(["a", "b,c"])),
        ("['a', 'b'].join()", json!("ab")),
        ("'aXbX'.replace('X', 'yy') + 'aXbX'.replace('X', '', 1)", json!("ayybyyabX")),
        ("'%s is %.2f'.format(['pi', 3.14159])", json!("pi is 3.14")),
        ("'über'.indexOf('e') + 'eve'.lastIndexOf('e', 1)", json!(2)),
        ("[3, 1, 3].distinct().sort()", json!([1, 3])),
        ("[{'n': 2}, {'n': 1}].sortBy(x, x.n).map(x, x.n)", json!([1, 2])),
        ("lists.range(3).map(x, x % 2 == 0, x * 10)", json!([0, 20])),
        ("matches('abc', '^a.c$') && 'abc'.matches('b')", json!(true)),
        ("[1, 2, 3].exists_one(x, x > 2)", json!(true)),
        ("math.greatest(1, input.n) + math.least([input.n, 5])", json!(46)),
        ("input.?n.orValue(1) + input.?m.orValue(1)", json!(42)),
        ("input.?list[0].orValue(9)", json!(3)),
        ("[?input.?n, ?input.?m]", json!([41])),
        ("{?'n': input.?n, ?'m': input.?m}", json!({"n": 41})),
        ("[input.?n].all(o, o.hasValue() && o.orValue(0) == 41)", json!(true)),
        ("nodes.map(nodes, size(nodes)).size()", json!(2)),
        ("'n' in input && 1 in input.list && !(7 in [input.n])", json!(true)),
        ("{'a': input.list}.a[size(input.list) - 1]", json!(2)),
        ("input.big.map(x, x + 1).filter(x, x == 2).size()", json!(2000)),
    ] {
        assert_eq!(value(source), expected, "{source}");
    }
    let numbers = json!({ "list": (0..100_000).collect::<Vec<_>>() });
    assert_eq!(evaluate("input.list.map(x, x + 1).size()", numbers.clone()), Ok(json!(100_000)));
    assert_eq!(evaluate("input.list.filter(x, string(x).matches('^9+$')).size()", numbers), Ok(json!(5)));
}

#[test]
fn only_cheap_values_are_computed_when_compiled() {
    let constant = |source: &str| Expression::compile(source).unwrap().constant();
    assert_eq!(constant("1 + 1 == 2").unwrap().unwrap(), json!(true));
    assert_eq!(constant("'a'.replace('a', 'b')").unwrap().unwrap(), json!("b"));
    assert!(constant("1 / 0 == 1").unwrap().is_err());
    assert!(constant(&("'x'".to_owned() + &".replace('','xxxxxxxxx')".repeat(9))).is_none());
    assert!(constant("'x'.matches('y')").is_none());
    assert!(constant("lists.range(1000000).size() > 1").is_none());
}

#[test]
fn a_reason_is_cut_off_at_its_limit() {
    let reason = evaluate("input.s - 1", json!({"s": "ü".repeat(1_000_000)})).unwrap_err();
    assert!(reason.len() < 1100, "{}", reason.len());
}

#[test]
fn an_absent_field_is_named() {
    let error = Expression::compile("input.missing.x").unwrap().evaluate(&scope()).unwrap_err();
    assert_eq!(error.to_string(), "expression `input.missing.x`: there is no `missing`");
}
