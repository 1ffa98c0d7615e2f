//! The kinds of failures: why a node or a run did not succeed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest word of a kind, in bytes.
const MAX_WORD_BYTES: usize = 64;

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $name:ident, $word:literal;)*) => {
        /// Why a node or a run failed. The words are part of the API and of stored journals: none ever changes.
        /// `docs/pipelines.md` lists them.
        ///
        /// The list is closed for GatheRing itself. The node types of an embedder may name kinds of their own
        /// ([`FailureKind::Custom`]), which they parse once: `"out_of_paper".parse::<FailureKind>()`.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum FailureKind {
            $($(#[$doc])* $name,)*
            /// A kind that GatheRing does not define.
            Custom(CustomKind),
        }

        impl FailureKind {
            /// Every kind but the custom ones.
            pub const ALL: &'static [FailureKind] = &[$(FailureKind::$name),*];

            /// The word for it in SQL and JSON.
            pub fn as_str(&self) -> &str {
                match self {
                    $(FailureKind::$name => $word,)*
                    FailureKind::Custom(CustomKind(word)) => word,
                }
            }

            /// The kind of GatheRing with this word.
            fn find(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(FailureKind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

failure_kinds! {
    /// A run's cancellation was requested.
    Cancelled, "cancelled";
    /// The store rejected a checkpoint of the run.
    CheckpointRefused, "checkpoint_refused";
    /// A child run was cancelled.
    ChildCancelled, "child_cancelled";
    /// A child run failed or timed out.
    ChildFailed, "child_failed";
    /// The node's circuit breaker is open.
    CircuitOpen, "circuit_open";
    /// A config is invalid once its expressions are computed.
    Config, "config";
    /// A computed config exceeds the nesting limit.
    ConfigTooDeep, "config_too_deep";
    /// A computed config exceeds the size limit.
    ConfigTooLarge, "config_too_large";
    /// No connection was made, or it broke.
    Connection, "connection";
    /// A person denied the approval.
    Denied, "denied";
    /// An effect differs from the effect of the same key in an earlier attempt.
    EffectChanged, "effect_changed";
    /// An effect that must not be repeated may have taken place.
    EffectUnknown, "effect_unknown";
    /// An expression has no value, or a value of the wrong type.
    Expression, "expression";
    /// A tool failed without a more specific kind.
    Failed, "failed";
    /// The workspace or the policy for outgoing requests forbids the access.
    Forbidden, "forbidden";
    /// This version does not accept the stored graph.
    GraphInvalid, "graph_invalid";
    /// The request of a tool or a webhook was answered with an error status, or with too many redirects.
    Http, "http";
    /// The request of `call_api` was answered with an unexpected status.
    HttpStatus, "http_status";
    /// The input of a child run exceeds the nesting limit.
    InputTooDeep, "input_too_deep";
    /// The input of a child run exceeds the size limit.
    InputTooLarge, "input_too_large";
    /// GatheRing itself is at fault.
    Internal, "internal";
    /// The attempt was interrupted, and is not repeated by itself.
    Interrupted, "interrupted";
    /// The answers of an agent do not fit its `output_schema`.
    InvalidAnswer, "invalid_answer";
    /// The input of a child run does not fit the input schema of its pipeline.
    InvalidInput, "invalid_input";
    /// The parameters of a tool are invalid.
    InvalidParameters, "invalid_parameters";
    /// A path is not a valid file name.
    InvalidPath, "invalid_path";
    /// An outgoing request is invalid.
    InvalidRequest, "invalid_request";
    /// The operating system failed at a file operation.
    Io, "io";
    /// An agent made as many model calls as it may.
    LimitMaxSteps, "limit_max_steps";
    /// An agent used as many tokens as it may.
    LimitMaxTokens, "limit_max_tokens";
    /// An agent made as many tool calls as it may.
    LimitMaxToolCalls, "limit_max_tool_calls";
    /// An agent took as long as it may.
    LimitTimeout, "limit_timeout_seconds";
    /// No model is configured for the agent.
    ModelMissing, "model_missing";
    /// The agent does not exist in the project.
    NoAgent, "no_agent";
    /// The pipeline to execute does not exist in the project.
    NoPipeline, "no_pipeline";
    /// The project has no workspace here.
    NoWorkspace, "no_workspace";
    /// A node failed, and with it the run.
    NodeFailed, "node_failed";
    /// This engine cannot execute the node type.
    NodeType, "node_type";
    /// A setting of the server that the node needs is missing.
    NotConfigured, "not_configured";
    /// The directory to remove is not empty.
    NotEmpty, "not_empty";
    /// A file or directory does not exist.
    NotFound, "not_found";
    /// The expression for the run's output has no value.
    Output, "output";
    /// An output exceeds the nesting limit.
    OutputTooDeep, "output_too_deep";
    /// An output exceeds the size limit.
    OutputTooLarge, "output_too_large";
    /// The code of a node type panicked.
    Panic, "panic";
    /// A tool panicked.
    Panicked, "panicked";
    /// The pipeline to execute is disabled.
    PipelineDisabled, "pipeline_disabled";
    /// The instances that drove the run died too often.
    Poisonous, "poisonous";
    /// A file is not in the state that the write expects.
    PreconditionFailed, "precondition_failed";
    /// The provider of an agent is unknown or not configured.
    Provider, "provider";
    /// The provider's reply cannot be read.
    ProviderMalformed, "provider_malformed";
    /// The provider rejected the request.
    ProviderRejected, "provider_rejected";
    /// The provider's client cannot be created.
    ProviderSetup, "provider_setup";
    /// The provider rejected the API key.
    ProviderUnauthorized, "provider_unauthorized";
    /// The provider failed or is overloaded.
    ProviderUnavailable, "provider_unavailable";
    /// A `fail` node ended the run.
    Raised, "raised";
    /// The provider's rate limit is reached, or another system has asked for a pause.
    RateLimited, "rate_limited";
    /// The script of the provider `scripted` has no reply left.
    ScriptEnded, "script_ended";
    /// The project has no secret of the name that the node uses.
    SecretMissing, "secret_missing";
    /// A secret is stored, but this server has not the key that it was encrypted with.
    SecretUnreadable, "secret_unreadable";
    /// The mail server refused a message, a recipient or the login.
    Smtp, "smtp";
    /// The store holds something that it should not, or lacks something.
    Store, "store";
    /// Time ran out: of the node or of the run.
    TimedOut, "timed_out";
    /// Another system did not answer in time, or a tool did not end in time.
    Unanswered, "timeout";
    /// Child runs are nested too deeply.
    TooDeep, "too_deep";
    /// A file or a response exceeds its size limit.
    TooLarge, "too_large";
    /// What the node needs is temporarily unavailable.
    Unavailable, "unavailable";
    /// No tool has this name.
    UnknownTool, "unknown_tool";
    /// A file is where a directory is expected, or the reverse.
    WrongKind, "wrong_kind";
}

/// The word of a kind that GatheRing does not define.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CustomKind(String);

/// A word that cannot name a kind of failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a kind of failure is a lower-case letter followed by at most {} lower-case letters, digits or `_`",
    MAX_WORD_BYTES - 1
)]
pub struct InvalidFailureKind;

impl FromStr for FailureKind {
    type Err = InvalidFailureKind;

    /// A word of GatheRing is its kind; any other word of the right spelling is a custom kind.
    fn from_str(word: &str) -> Result<Self, InvalidFailureKind> {
        if let Some(kind) = Self::find(word) {
            return Ok(kind);
        }
        let is_inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts_well = word.starts_with(|first: char| first.is_ascii_lowercase());
        if starts_well && word.len() <= MAX_WORD_BYTES && word.bytes().all(is_inside) {
            Ok(FailureKind::Custom(CustomKind(word.to_owned())))
        } else {
            Err(InvalidFailureKind)
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FailureKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for FailureKind {
    /// Accepts any word and keeps it: a journal must replay, whichever version or node type wrote it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::find(&word).unwrap_or(FailureKind::Custom(CustomKind(word))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_word() {
        for kind in FailureKind::ALL {
            assert_eq!(kind.as_str().parse().as_ref(), Ok(kind));
            let stored = serde_json::to_value(kind).unwrap();
            assert_eq!(stored, kind.as_str());
            assert_eq!(&serde_json::from_value::<FailureKind>(stored).unwrap(), kind);
        }
    }

    #[test]
    fn a_custom_kind_is_a_plain_word() {
        let longest = "a".repeat(MAX_WORD_BYTES);
        for word in ["hoarse", "out_of_paper_2", &longest] {
            let kind: FailureKind = word.parse().unwrap();
            assert!(matches!(kind, FailureKind::Custom(_)));
            assert_eq!(kind.as_str(), word);
        }
        let too_long = "a".repeat(MAX_WORD_BYTES + 1);
        for word in ["", "Hoarse", "2nd", "_hoarse", "out of paper", "hoarse!", "heiß", &too_long] {
            assert_eq!(word.parse::<FailureKind>(), Err(InvalidFailureKind), "{word}");
        }
    }

    #[test]
    fn any_stored_word_is_read_and_kept() {
        for word in ["hoarse", "Out of paper", ""] {
            let kind: FailureKind = serde_json::from_value(word.into()).unwrap();
            assert_eq!(kind.as_str(), word);
            assert_eq!(serde_json::to_value(&kind).unwrap(), word);
        }
        assert!(serde_json::from_str::<FailureKind>("7").is_err());
    }

    /// The words in the first column of the table of `docs/pipelines.md`, in its order.
    fn documented() -> Vec<String> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pipelines.md");
        let guide = std::fs::read_to_string(path).unwrap();
        let (_, section) = guide.split_once("\n### Why a node failed\n").unwrap();
        let section = section.split_once("\n#").map_or(section, |(section, _)| section);
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        rows.map(|(word, _)| word.to_owned()).collect()
    }

    #[test]
    fn the_table_in_the_guide_lists_every_kind_once_and_no_other() {
        let documented = documented();
        let words: BTreeSet<&str> = FailureKind::ALL.iter().map(FailureKind::as_str).collect();
        let unique: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
        assert_eq!(unique, words);
        assert_eq!(documented.len(), words.len(), "a kind is listed twice");
    }
}
