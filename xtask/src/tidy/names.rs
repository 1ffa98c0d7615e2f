//! One public name for one thing: no two public types of all crates share their name.

use std::collections::BTreeMap;

use syn::visit::Visit;
use syn::{Ident, Visibility};

use super::sources::Sources;

/// Names that two crates may both have, and why.
const SHARED: &[(&str, &str)] = &[
    ("Scope", "what an API key may do; the names in an expression"),
    ("ToolSpec", "the spec of the node type `tool`; what a tool says of itself"),
    ("StoreError", "each port has the error of its store"),
];

/// Checks the sources of all crates.
pub(super) fn check(sources: &Sources) -> Vec<String> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for (source, syntax) in sources.rust().filter(|(source, _)| source.is_of_a_crate()) {
        let mut types = Types::default();
        types.visit_file(syntax);
        for (name, line) in types.0 {
            found.entry(name).or_default().push(format!("{}:{line}", source.path));
        }
    }
    let is_shared = |name: &str| SHARED.iter().any(|(shared, _)| *shared == name);
    let doubles = found.iter().filter(|(name, places)| places.len() > 1 && !is_shared(name));
    doubles
        .map(|(name, places)| format!("{}: two public types are called `{name}`", places.join(", ")))
        .collect()
}

/// The public types of a file and their lines.
#[derive(Default)]
struct Types(Vec<(String, usize)>);

impl Types {
    fn note(&mut self, visibility: &Visibility, name: &Ident) {
        if matches!(visibility, Visibility::Public(_)) {
            self.0.push((name.to_string(), name.span().start().line));
        }
    }
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.note(&item.vis, &item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.note(&item.vis, &item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.note(&item.vis, &item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.note(&item.vis, &item.ident);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::super::sources::Source;
    use super::*;

    #[test]
    fn a_second_public_type_of_a_name_is_a_breach_and_a_private_one_is_not() -> Result<()> {
        let file = |path: &str, text: &str| Source::parse(path, text.to_owned());
        let files = vec![
            file("crates/a/src/a.rs", "pub struct Run;\nstruct Own;")?,
            file("crates/b/src/b.rs", "\npub enum Run {}\npub(crate) struct Own;")?,
        ];
        let found = check(&Sources { files });
        assert_eq!(found, ["crates/a/src/a.rs:1, crates/b/src/b.rs:2: two public types are called `Run`"]);
        Ok(())
    }
}
