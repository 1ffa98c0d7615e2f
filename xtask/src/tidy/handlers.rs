//! Handlers of the HTTP interface decide what a caller may do after their body has come whole.

use anyhow::{Result, ensure};
use syn::visit::{self, Visit};
use syn::{FnArg, Type};

use super::sources::Sources;

/// Where the handlers are.
const HANDLERS: &str = "crates/server/src/http/";

/// Extractors of a body, by the last part of their type.
const BODIES: &[&str] = &["Body", "OpenBody"];

/// The extractor that knows the caller at once. A handler with a body gets the caller out of the body's extractor.
const CALLER: &str = "Authenticated";

/// A right may end while a body is on its way, so no handler takes the caller beside a body.
pub(super) fn check(sources: &Sources) -> Result<Vec<String>> {
    let mut search = Search::default();
    for (source, syntax) in sources.rust().filter(|(source, _)| source.path.starts_with(HANDLERS)) {
        search.path.clone_from(&source.path);
        search.visit_file(syntax);
    }
    ensure!(search.n_bodies > 10, "the check of handlers finds only {} with a body", search.n_bodies);
    Ok(search.breaches)
}

#[derive(Default)]
struct Search {
    path: String,
    n_bodies: usize,
    breaches: Vec<String>,
}

impl<'ast> Visit<'ast> for Search {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let takes = |names: &[&str]| {
            signature.inputs.iter().any(|input| match input {
                FnArg::Typed(input) => last_of(&input.ty).is_some_and(|name| names.contains(&name.as_str())),
                FnArg::Receiver(_) => false,
            })
        };
        if takes(BODIES) && signature.asyncness.is_some() {
            self.n_bodies += 1;
            if takes(&[CALLER]) {
                let line = signature.ident.span().start().line;
                let name = &signature.ident;
                self.breaches.push(format!(
                    "{}:{line}: `{name}` knows its caller before the body has come; take the caller from the body",
                    self.path
                ));
            }
        }
        visit::visit_signature(self, signature);
    }
}

/// The last part of a type's path, without its parameters.
fn last_of(kind: &Type) -> Option<String> {
    match kind {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_with_both_is_found() -> Result<()> {
        let mut search = Search::default();
        let text = "async fn bad(who: Authenticated, body: Body<New>) {}\nasync fn good(body: http::Body<New>) {}\n\
                    async fn read(who: Authenticated) {}";
        search.visit_file(&syn::parse_file(text)?);
        assert_eq!((search.n_bodies, search.breaches.len()), (2, 1), "{:?}", search.breaches);
        assert!(search.breaches[0].contains(":1: `bad`"), "{:?}", search.breaches);
        Ok(())
    }
}
