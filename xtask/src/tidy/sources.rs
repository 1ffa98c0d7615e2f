//! The files of the repository, read once; Rust files are parsed as well.
//!
//! Owns what all rules need to know about a file and its lines. Never knows a rule.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use proc_macro2::TokenStream;
use syn::visit::Visit;

use crate::process;

/// The text files of the repository, in the order of their paths.
pub(super) struct Sources {
    pub(super) files: Vec<Source>,
}

/// One text file.
pub(super) struct Source {
    /// From the root of the repository.
    pub(super) path: String,
    pub(super) text: String,
    /// What a Rust file declares; absent for other files.
    pub(super) syntax: Option<syn::File>,
}

impl Sources {
    /// Reads what git tracks, and what it would track.
    pub(super) fn read(root: &Path) -> Result<Sources> {
        let mut git = Command::new("git");
        git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root);
        let mut files = Vec::new();
        for path in process::output(&mut git)?.lines() {
            // Deleted but not committed, or not text.
            let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
            files.push(Source::parse(path, text)?);
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Sources { files })
    }

    /// The Rust files and what they declare.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&Source, &syn::File)> {
        self.files.iter().filter_map(|source| Some((source, source.syntax.as_ref()?)))
    }
}

impl Source {
    /// Parses a file if it is Rust.
    pub(super) fn parse(path: &str, text: String) -> Result<Source> {
        let syntax = if path.ends_with(".rs") {
            Some(syn::parse_file(&text).with_context(|| format!("cannot parse {path}"))?)
        } else {
            None
        };
        Ok(Source { path: path.to_owned(), text, syntax })
    }

    /// Whether it is the source of a crate, and not one of its tests or examples.
    pub(super) fn is_of_a_crate(&self) -> bool {
        self.path.starts_with("crates/") && self.path.contains("/src/")
    }

    /// Whether a program wrote it.
    pub(super) fn is_generated(&self) -> bool {
        self.text.lines().next().is_some_and(|line| line.contains("@generated"))
    }

    /// The first line that contains `pattern`, counted from one.
    pub(super) fn line_with(&self, pattern: &str) -> Option<usize> {
        self.text.lines().position(|line| line.contains(pattern)).map(|index| index + 1)
    }

    /// Three lines from this one on, as one.
    pub(super) fn near(&self, line: usize) -> String {
        self.text.lines().skip(line.saturating_sub(1)).take(3).collect()
    }
}

/// Calls `found` for each string literal with its line: also for those in macros, not for those in comments.
pub(super) fn each_string(syntax: &syn::File, found: impl FnMut(&str, usize)) {
    let mut strings = Strings { found };
    strings.visit_file(syntax);
}

struct Strings<F> {
    found: F,
}

impl<F: FnMut(&str, usize)> Strings<F> {
    fn search(&mut self, tokens: TokenStream) {
        each_token(tokens, &mut |token| {
            if let proc_macro2::TokenTree::Literal(literal) = token
                && let syn::Lit::Str(text) = syn::Lit::new(literal.clone())
            {
                (self.found)(&text.value(), literal.span().start().line);
            }
        });
    }
}

impl<'ast, F: FnMut(&str, usize)> Visit<'ast> for Strings<F> {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        (self.found)(&text.value(), text.span().start().line);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.search(called.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.search(list.tokens.clone());
        }
    }
}

/// Calls `found` for each token, also within brackets.
pub(super) fn each_token(tokens: TokenStream, found: &mut impl FnMut(&proc_macro2::TokenTree)) {
    for token in tokens {
        found(&token);
        if let proc_macro2::TokenTree::Group(group) = &token {
            each_token(group.stream(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_in_code_and_in_macros_but_not_in_comments() -> Result<()> {
        let text = "/// \"a comment\"\n#[error(\"an attribute\")]\nfn f() {\n    g(\"code\", \
                    r#\"raw\"#);\n    vec![h(\"a macro\")];\n}\n";
        let source = Source::parse("a.rs", text.to_owned())?;
        let mut found = Vec::new();
        each_string(source.syntax.as_ref().context("no syntax")?, |text, line| {
            found.push((text.to_owned(), line));
        });
        let found: Vec<(&str, usize)> = found.iter().map(|(text, line)| (text.as_str(), *line)).collect();
        assert_eq!(found, [("an attribute", 2), ("code", 4), ("raw", 4), ("a macro", 5)]);
        Ok(())
    }
}
