//! Why a message was not delivered, or may have been.

use std::time::Duration;

use gathering_domain::FailureKind;
use lettre::transport::smtp;

use crate::workspace::WorkspaceError;

/// A recipient that the mail server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecipient {
    /// The address.
    pub address: String,
    /// The code of the answer.
    pub code: u16,
    /// The text of the answer, cut.
    pub text: String,
}

/// Why a message was not delivered. No variant contains the message, the password or the user name.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// A file to attach cannot be read; nothing was sent.
    #[error("cannot attach `{path}`")]
    Attachment {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: WorkspaceError,
    },
    /// The attachments are too large; nothing was sent.
    #[error("the attachments have more than {limit_bytes} bytes together")]
    AttachmentsTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The message cannot be written; nothing was sent.
    #[error("cannot write the message")]
    Format(#[source] lettre::error::Error),
    /// The settings for TLS cannot be used.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
    /// A certificate of the operator cannot be read.
    #[error("no certificates in PEM form")]
    Certificates(#[source] rustls::pki_types::pem::Error),
    /// No connection was made; nothing was sent.
    #[error("cannot connect to the mail server `{host}`")]
    Connect {
        /// The mail server.
        host: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The connection cannot be encrypted; nothing was sent.
    #[error("no TLS with the mail server `{host}`: {reason}")]
    Tls {
        /// The mail server.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The mail server knows no way to log in that is supported; nothing was sent.
    #[error("the mail server `{host}` offers no login with a password (PLAIN or LOGIN)")]
    NoLogin {
        /// The mail server.
        host: String,
    },
    /// An address needs an extension that the mail server does not have; nothing was sent.
    #[error("the mail server `{host}` does not accept `{address}`: it has no SMTPUTF8")]
    NoUnicode {
        /// The mail server.
        host: String,
        /// The address.
        address: String,
    },
    /// The mail server refused; nothing was delivered.
    #[error("the mail server `{host}` refused {what}: {code} {text}")]
    Refused {
        /// The mail server.
        host: String,
        /// What it refused.
        what: &'static str,
        /// The code of its answer.
        code: u16,
        /// The text of its answer, cut; empty where it may hold a secret.
        text: String,
    },
    /// The mail server refused recipients, so that nothing was sent to any of them.
    #[error("the mail server `{host}` refused recipients, and nothing was sent: {}", listed(.refused))]
    RecipientsRefused {
        /// The mail server.
        host: String,
        /// Those that it refused.
        refused: Vec<RefusedRecipient>,
    },
    /// The mail server did not answer in time, before it had the message.
    #[error("the mail server `{host}` did not answer within {} seconds", .after.as_secs_f64())]
    TimedOut {
        /// The mail server.
        host: String,
        /// The time limit.
        after: Duration,
    },
    /// The connection broke before the mail server had the message.
    #[error("the connection to the mail server `{host}` broke")]
    BrokenOff {
        /// The mail server.
        host: String,
        /// The cause.
        #[source]
        source: smtp::Error,
    },
    /// The mail server may have the message.
    #[error(
        "the mail server `{host}` may have delivered the message {message_id}: {reason}; look for that id in its log"
    )]
    Unknown {
        /// The mail server.
        host: String,
        /// The `Message-ID`.
        message_id: String,
        /// Why nobody knows.
        reason: String,
    },
}

impl MailError {
    /// A short name of the cause, which is the same in all versions.
    pub const fn kind(&self) -> FailureKind {
        match self {
            MailError::Attachment { source, .. } => source.kind(),
            MailError::AttachmentsTooLarge { .. } => FailureKind::TooLarge,
            MailError::Format(_) => FailureKind::InvalidRequest,
            MailError::Setup(_) | MailError::Certificates(_) => FailureKind::Internal,
            MailError::Connect { .. } | MailError::Tls { .. } | MailError::BrokenOff { .. } => {
                FailureKind::Connection
            }
            MailError::NoLogin { .. }
            | MailError::NoUnicode { .. }
            | MailError::Refused { .. }
            | MailError::RecipientsRefused { .. } => FailureKind::Smtp,
            MailError::TimedOut { .. } | MailError::Unknown { .. } => FailureKind::Unanswered,
        }
    }

    /// Whether the message may have been delivered.
    pub const fn may_have_been_delivered(&self) -> bool {
        matches!(self, MailError::Unknown { .. })
    }

    /// Whether the same message may be delivered later. The mail server says so itself, by a code from 400 to 499.
    pub fn is_retryable(&self) -> bool {
        match self {
            MailError::Connect { .. } | MailError::TimedOut { .. } | MailError::BrokenOff { .. } => true,
            MailError::Attachment { source, .. } => source.is_retryable(),
            MailError::Refused { code, .. } => is_transient(*code),
            MailError::RecipientsRefused { refused, .. } => {
                refused.iter().all(|recipient| is_transient(recipient.code))
            }
            MailError::AttachmentsTooLarge { .. }
            | MailError::Format(_)
            | MailError::Setup(_)
            | MailError::Certificates(_)
            | MailError::Tls { .. }
            | MailError::NoLogin { .. }
            | MailError::NoUnicode { .. }
            | MailError::Unknown { .. } => false,
        }
    }
}

const fn is_transient(code: u16) -> bool {
    matches!(code, 400..=499)
}

fn listed(refused: &[RefusedRecipient]) -> String {
    let one =
        |RefusedRecipient { address, code, text }: &RefusedRecipient| format!("`{address}` ({code} {text})");
    refused.iter().map(one).collect::<Vec<_>>().join(", ")
}
