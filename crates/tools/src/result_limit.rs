//! Bounds the results of tools: what is too large is cut, and says so.
//!
//! The shape stays: an object keeps its fields, a list its first items, and a text its beginning with a mark. Numbers are
//! never changed. The field `$cut` of the result says what is missing.

mod size;

use gathering_domain::Pointer;
use serde_json::{Map, Value, json};

use crate::cut::mark;
use size::{json_size, text_size};

/// Kept free for `$cut`.
const NOTE_BYTES: usize = 1024;
/// The least room of a value: a number, or a mark.
const LEAST_BYTES: usize = 64;
/// How many places `$cut` names.
const MAX_PLACES: usize = 8;
/// A longer pointer is not named.
const MAX_POINTER_BYTES: usize = 64;

/// The least limit of a result.
pub(crate) const LEAST_LIMIT: usize = 4096;

/// `value` if it has at most `limit` bytes as JSON without spaces; otherwise what fits, with a field `$cut`. A result that
/// is no object becomes the field `value` of one.
pub(crate) fn bound(value: Value, limit: usize) -> Value {
    let size = json_size(&value);
    if size <= limit {
        return value;
    }
    let mut cutting = Cutting { places: Vec::new(), n_places: 0 };
    let wrapper = r#"{"value":}"#.len();
    let room = limit.max(LEAST_LIMIT) - NOTE_BYTES - wrapper;
    let kept = cutting.fit(&value, room, &Pointer::root());
    let kept_bytes = json_size(&kept);
    let mut fields = match kept {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    let note =
        json!({"bytes": size, "kept": kept_bytes, "n_places": cutting.n_places, "places": cutting.places});
    fields.insert("$cut".to_owned(), note);
    Value::Object(fields)
}

struct Cutting {
    places: Vec<Value>,
    n_places: usize,
}

impl Cutting {
    /// What of `value` fits into `room`, which is at least [`LEAST_BYTES`].
    fn fit(&mut self, value: &Value, room: usize, place: &Pointer) -> Value {
        match value {
            _ if json_size(value) <= room => value.clone(),
            Value::String(text) => self.fit_text(text, room, place),
            Value::Array(items) => self.fit_list(items, room, place),
            Value::Object(fields) => self.fit_fields(fields, room, place),
            other => other.clone(),
        }
    }

    fn note(&mut self, place: &Pointer, kept: usize, of: usize, unit: &str) {
        self.n_places += 1;
        if self.places.len() < MAX_PLACES && place.as_str().len() <= MAX_POINTER_BYTES {
            self.places.push(json!({"at": place.as_str(), "kept": kept, "of": of, "unit": unit}));
        }
    }

    fn fit_text(&mut self, text: &str, room: usize, place: &Pointer) -> Value {
        let room = room.saturating_sub(text_size(&mark(text.len(), text.len())));
        let (mut kept, mut size) = (0, 0);
        for (at, character) in text.char_indices() {
            size += size::char_size(character);
            if size > room {
                break;
            }
            kept = at + character.len_utf8();
        }
        self.note(place, kept, text.len(), "bytes");
        Value::String(format!("{}{}", &text[..kept], mark(kept, text.len())))
    }

    /// The first items. If not even the first one fits, as much of it as does.
    fn fit_list(&mut self, items: &[Value], room: usize, place: &Pointer) -> Value {
        let mut left = room.saturating_sub("[]".len());
        let mut kept = Vec::new();
        for item in items {
            let size = json_size(item) + ",".len();
            if size > left {
                break;
            }
            left -= size;
            kept.push(item.clone());
        }
        if let (true, Some(first)) = (kept.is_empty() && left > LEAST_BYTES, items.first()) {
            kept.push(self.fit(first, left - ",".len(), &place.join(0)));
        }
        if kept.len() < items.len() {
            self.note(place, kept.len(), items.len(), "items");
        }
        Value::Array(kept)
    }

    /// The fields, the largest ones cut. If there are too many, the first ones.
    fn fit_fields(&mut self, fields: &Map<String, Value>, room: usize, place: &Pointer) -> Value {
        let mut left = room.saturating_sub("{}".len());
        let mut sizes = Vec::new();
        for (name, value) in fields {
            let least = text_size(name) + ":,".len() + json_size(value).min(LEAST_BYTES);
            if least > left {
                break;
            }
            left -= least;
            sizes.push(json_size(value));
        }
        let n_kept = sizes.len();
        let least_of_all: usize = sizes.iter().map(|size| size.min(&LEAST_BYTES)).sum();
        let largest = fair_share(sizes, left + least_of_all).max(LEAST_BYTES);
        let kept = fields.iter().take(n_kept);
        let kept =
            kept.map(|(name, value)| (name.clone(), self.fit(value, largest, &place.join(name)))).collect();
        if n_kept < fields.len() {
            self.note(place, n_kept, fields.len(), "fields");
        }
        Value::Object(kept)
    }
}

/// The largest size that each may have, so that all together have at most `room`: small ones leave theirs to large ones.
fn fair_share(mut sizes: Vec<usize>, room: usize) -> usize {
    sizes.sort_unstable();
    let (mut left, mut n_left) = (room, sizes.len());
    for size in sizes {
        let share = left / n_left;
        if size > share {
            return share;
        }
        left -= size;
        n_left -= 1;
    }
    room
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_result_is_not_touched() {
        let value = json!({"content": "x".repeat(4096 - 14)});
        assert_eq!(value.to_string().len(), 4096);
        assert_eq!(bound(value.clone(), 4096), value);
    }

    #[test]
    fn the_longest_parts_are_cut_and_the_others_stay() {
        let value =
            json!({"body": "ä".repeat(5000), "status": 200, "headers": {"a": "b"}, "large": u64::MAX});
        let cut = bound(value, 4096);
        assert_eq!(
            (&cut["status"], &cut["headers"], &cut["large"]),
            (&json!(200), &json!({"a": "b"}), &json!(u64::MAX))
        );
        let (text, note) = (cut["body"].as_str().unwrap(), &cut["$cut"]);
        let place = &note["places"][0];
        assert!(text.ends_with(&format!("ä…[cut: {} of 10000 bytes]", place["kept"])), "{text}");
        assert_eq!(
            (&place["at"], &place["of"], &place["unit"]),
            (&json!("/body"), &json!(10000), &json!("bytes"))
        );
        assert_eq!((note["bytes"].as_u64().unwrap() > 10000, &note["n_places"]), (true, &json!(1)), "{note}");
        assert!((3000..4096).contains(&cut.to_string().len()), "{}", cut.to_string().len());
    }

    #[test]
    fn a_list_keeps_its_first_items_whole() {
        let rows: Vec<Value> = (0..1000).map(|n| json!({"n": n, "text": "0123456789"})).collect();
        let cut = bound(json!({"rows": rows, "more": true}), 4096);
        let kept = cut["rows"].as_array().unwrap();
        assert_eq!((kept[..] == rows[..kept.len()], &cut["more"]), (true, &json!(true)));
        assert_eq!(
            cut["$cut"]["places"],
            json!([{"at": "/rows", "kept": kept.len(), "of": 1000, "unit": "items"}])
        );
        assert!(kept.len() > 50, "{}", kept.len());
    }

    #[test]
    fn what_is_no_object_becomes_a_field_of_one() {
        let cut = bound(json!("x".repeat(5000)), 4096);
        assert!(cut["value"].as_str().unwrap().starts_with("xxx"));
        let many: Map<String, Value> = (0..1000).map(|n| (format!("field {n}"), json!(n))).collect();
        let cut = bound(Value::Object(many), 4096);
        assert_eq!((&cut["field 7"], &cut["$cut"]["places"][0]["unit"]), (&json!(7), &json!("fields")));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            ("[a\"\u{1}é𝄞\n]{0,3}", 0..4000_usize).prop_map(|(text, n)| Value::from(text.repeat(n))),
        ];
        scalar.prop_recursive(5, 64, 12, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
                prop::collection::vec((".{0,200}", inner), 0..12)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_size_is_that_of_the_text(value in any_value()) {
            prop_assert_eq!(json_size(&value), value.to_string().len());
        }

        #[test]
        fn a_result_is_within_its_limit_and_valid(value in any_value(), limit in LEAST_LIMIT..20_000) {
            let (whole, bounded) = (value.to_string().len(), bound(value.clone(), limit));
            let text = bounded.to_string();
            prop_assert!(text.len() <= limit, "{} > {limit}", text.len());
            prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &bounded);
            if whole <= limit {
                prop_assert_eq!(bounded, value);
            } else {
                prop_assert!(bounded["$cut"]["n_places"].as_u64().unwrap() > 0);
                prop_assert_eq!(&bounded["$cut"]["bytes"], &json!(whole));
            }
        }
    }
}
