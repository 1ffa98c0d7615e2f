//! The operator's mail server.

use std::str::FromStr;
use std::time::Duration;

use gathering_domain::Secret;

use super::MailAddress;

/// How the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// It begins unencrypted, and must change to TLS before anything is sent (`STARTTLS`).
    StartTls,
    /// It begins with TLS.
    Implicit,
    /// Not at all, for a server on this machine.
    None,
    /// Not at all, wherever the server is.
    Insecure,
}

/// A text that names no kind of encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `starttls`, `implicit`, `none` or `insecure`")]
pub struct InvalidSmtpTls;

impl SmtpTls {
    /// The port that mail servers use for it.
    pub const fn default_port(self) -> u16 {
        match self {
            SmtpTls::StartTls => 587,
            SmtpTls::Implicit => 465,
            SmtpTls::None | SmtpTls::Insecure => 25,
        }
    }
}

impl FromStr for SmtpTls {
    type Err = InvalidSmtpTls;

    fn from_str(text: &str) -> Result<Self, InvalidSmtpTls> {
        match text {
            "starttls" => Ok(SmtpTls::StartTls),
            "implicit" => Ok(SmtpTls::Implicit),
            "none" => Ok(SmtpTls::None),
            "insecure" => Ok(SmtpTls::Insecure),
            _ => Err(InvalidSmtpTls),
        }
    }
}

/// The account at the mail server.
#[derive(Debug, Clone)]
pub struct SmtpLogin {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// The mail server, and how to speak to it.
#[derive(Debug, Clone)]
pub struct SmtpSettings {
    /// Its name or address. TLS checks that its certificate is for it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: SmtpTls,
    /// The account there, if the server asks for one.
    pub login: Option<SmtpLogin>,
    /// The sender of every message.
    pub from: MailAddress,
    /// How long to wait for each of its answers.
    pub timeout: Duration,
    /// Certificate authorities to trust besides those of the system, as PEM.
    pub extra_ca_pem: Vec<u8>,
}
