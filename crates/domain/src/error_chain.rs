//! Errors as text.

use std::error::Error;

/// An error and its causes in one line, separated by `: `. A cause that the text already contains is not repeated.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        cause: std::io::Error,
    }

    #[test]
    fn every_cause_of_an_error_is_named_once() {
        let cause = || std::io::Error::other("no route");
        assert_eq!(
            with_causes(&Layer { text: "cannot connect", cause: cause() }),
            "cannot connect: no route"
        );
        assert_eq!(with_causes(&Layer { text: "connect: no route", cause: cause() }), "connect: no route");
        assert_eq!(with_causes(&cause()), "no route");
    }
}
