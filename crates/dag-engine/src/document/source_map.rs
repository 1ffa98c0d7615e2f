//! The position of each value in a document's text, so that a problem can be shown in the author's own file.

use gathering_domain::Pointer;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// The position of each value in the text of a YAML or JSON document; empty where it is unknown.
pub struct SourceMap(Option<Spanned<Tree>>);

enum Tree {
    Leaf,
    Items(Vec<Spanned<Tree>>),
    Fields(Vec<(String, Spanned<Tree>)>),
}

impl SourceMap {
    /// Reads a text again for its places. Linear in its size; worth it only once there is a problem.
    pub fn of(text: &str) -> Self {
        Self(serde_saphyr::from_str(text).ok())
    }

    /// Line and column of a place, counted from 1; of what is around it when the place itself is missing.
    pub fn find(&self, pointer: &Pointer) -> Option<(u64, u64)> {
        let mut at = self.0.as_ref()?;
        for token in pointer.as_str().split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let below = match &at.value {
                Tree::Fields(fields) => {
                    fields.iter().find(|(name, _)| *name == token).map(|(_, value)| value)
                }
                Tree::Items(items) => token.parse().ok().and_then(|index: usize| items.get(index)),
                Tree::Leaf => None,
            };
            match below {
                Some(below) => at = below,
                None => break,
            }
        }
        let (line, column) = (at.referenced.line(), at.referenced.column());
        (line > 0).then_some((line, column))
    }
}

impl std::fmt::Debug for SourceMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceMap").field("are_known", &self.0.is_some()).finish()
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            fields.push((name, map.next_value()?));
        }
        Ok(Tree::Fields(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element()? {
            found.push(item);
        }
        Ok(Tree::Items(found))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Tree::Leaf)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_in_yaml_and_in_json() {
        let yaml = "nodes:\n  - id: a\n    config: {x/y: 1}\n";
        let json = "{\"nodes\": [\n  {\"id\": \"a\", \"config\": {\"x/y\": 1}}]}";
        let at = |text: &str, pointer: &str| SourceMap::of(text).find(&pointer.to_owned().into());
        assert_eq!(at(yaml, "/nodes/0/config/x~1y"), Some((3, 19)));
        assert_eq!(at(json, "/nodes/0/config/x~1y"), Some((2, 33)));
        assert_eq!(
            at(yaml, "/nodes/0/type"),
            at(yaml, "/nodes/0"),
            "what is missing has the place around it"
        );
        assert_eq!(at("nodes: [", "/nodes"), None);
    }
}
