//! The talk with the mail server.
//!
//! Each step is a step of its own here, because what a failure means depends on it: until the message itself is sent,
//! nothing can have been delivered; after that, only an answer of the server tells.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gathering_domain::ExposeSecret as _;
use lettre::Address;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::{Response, Severity};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsConnector;

use super::connect::{connect, tls_connector, within};
use super::{Mail, MailError, RefusedRecipient, SmtpLogin, SmtpSettings, SmtpTls};

/// Messages that are sent at once. Mail servers take few connections of one client.
const MAX_MESSAGES: usize = 8;
/// How long the server may take to say good-bye, when the message is delivered already.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);
/// A slower connection counts as one that does not answer: 16 KiB a second.
const LEAST_BYTES_PER_SECOND: u64 = 16 * 1024;
/// The most characters that are shown of an answer.
const MAX_SHOWN: usize = 200;

/// Sends messages by the operator's mail server, each on a connection of its own. Cloning is cheap.
#[derive(Clone)]
pub struct Mailer(Arc<Inner>);

struct Inner {
    settings: SmtpSettings,
    turns: Semaphore,
    tls: Option<TlsConnector>,
    hello: ClientId,
}

/// A message that the mail server has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMail {
    /// Its `Message-ID`.
    pub message_id: String,
    /// The addresses that get it.
    pub recipients: Vec<String>,
    /// The server's answer, cut.
    pub response: String,
}

impl Mailer {
    /// A mailer with these settings. It connects to nothing yet.
    ///
    /// # Errors
    /// [`MailError::Certificates`] and [`MailError::Setup`] if the certificates for TLS cannot be used.
    pub fn new(settings: SmtpSettings) -> Result<Self, MailError> {
        let tls = match settings.tls {
            SmtpTls::StartTls | SmtpTls::Implicit => Some(tls_connector(&settings.extra_ca_pem)?),
            SmtpTls::None | SmtpTls::Insecure => None,
        };
        Ok(Self(Arc::new(Inner { settings, turns: Semaphore::new(MAX_MESSAGES), tls, hello: hello() })))
    }

    /// Waits until fewer than 8 messages are being sent, and holds the place of one more. Take it before a message is put
    /// together: with its attachments it is held in memory two or three times.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.0.turns.acquire().await.ok()
    }

    /// Sends `mail` to all of its recipients, or to none: if the server refuses one, nothing is sent.
    ///
    /// Cancel: the message may have been delivered.
    ///
    /// # Errors
    /// [`MailError`]; after [`MailError::Unknown`] alone the message may have been delivered.
    pub async fn send(&self, mail: &Mail) -> Result<SentMail, MailError> {
        let Inner { settings, tls, hello, .. } = &*self.0;
        let message_id = mail.message_id(&settings.from);
        let recipients = mail.recipients();
        let message = mail.format(&settings.from, &message_id)?;
        let connection = connect(settings, tls.as_ref(), hello).await?;
        let mut session = Session { settings, connection };
        if let Some(login) = &settings.login {
            session.log_in(login).await?;
        }
        session.announce(&recipients, message.is_ascii()).await?;
        let delivered = session.deliver(&message).await;
        let response = delivered.map_err(|error| error.with_id(settings, &message_id))?;
        // Its answer changes nothing.
        let _ = tokio::time::timeout(QUIT_TIMEOUT, session.connection.quit()).await;
        let recipients = recipients.iter().map(ToString::to_string).collect();
        Ok(SentMail { message_id, recipients, response })
    }
}

/// The name of this machine, if other machines may know it, and else an address that says nothing.
fn hello() -> ClientId {
    let name = rustix::system::uname();
    let name = name.nodename().to_str().unwrap_or_default();
    let is_host = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.');
    if name.contains('.') && name.chars().all(is_host) {
        ClientId::Domain(name.to_owned())
    } else {
        ClientId::Ipv4(std::net::Ipv4Addr::LOCALHOST)
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailer").field("host", &self.0.settings.host).finish_non_exhaustive()
    }
}

/// How the last step failed.
enum NotDelivered {
    /// The server does not have the message.
    Refused(MailError),
    /// The server may have it.
    Unknown(String),
}

impl NotDelivered {
    fn with_id(self, settings: &SmtpSettings, message_id: &str) -> MailError {
        match self {
            NotDelivered::Refused(error) => error,
            NotDelivered::Unknown(reason) => {
                MailError::Unknown { host: settings.host.clone(), message_id: message_id.to_owned(), reason }
            }
        }
    }
}

/// One connection.
struct Session<'a> {
    settings: &'a SmtpSettings,
    connection: AsyncSmtpConnection,
}

impl Session<'_> {
    async fn log_in(&mut self, login: &SmtpLogin) -> Result<(), MailError> {
        if self.connection.server_info().get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
            return Err(MailError::NoLogin { host: self.settings.host.clone() });
        }
        let password = login.password.expose_secret().to_owned();
        let credentials = Credentials::new(login.user.clone(), password);
        let answer = self.connection.auth(DEFAULT_MECHANISMS, &credentials);
        let answer = within(self.settings, Duration::ZERO, answer).await?;
        match answer.map_err(|error| broken(self.settings, "the login", error)) {
            Ok(_) => Ok(()),
            // A server may repeat what it was told.
            Err(MailError::Refused { host, what, code, .. }) => {
                Err(MailError::Refused { host, what, code, text: "(its text is not shown)".to_owned() })
            }
            Err(other) => Err(other),
        }
    }

    /// Names the sender and every recipient, so that all refusals are known before anything is sent.
    async fn announce(&mut self, recipients: &[Address], is_ascii: bool) -> Result<(), MailError> {
        let host = || self.settings.host.clone();
        let mut parameters = Vec::new();
        let sender = self.settings.from.mailbox().email.clone();
        let mut all = recipients.iter().chain([&sender]);
        if let Some(address) = all.find(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
            if !self.connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(MailError::NoUnicode { host: host(), address: address.to_string() });
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !is_ascii && self.connection.server_info().supports_feature(Extension::EightBitMime) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        self.command("the sender", MailFrom::new(Some(sender.clone()), parameters)).await?;
        let mut refused = Vec::new();
        for recipient in recipients {
            match self.command("a recipient", Rcpt::new(recipient.clone(), Vec::new())).await {
                Ok(_) => {}
                Err(MailError::Refused { code, text, .. }) => {
                    refused.push(RefusedRecipient { address: recipient.to_string(), code, text });
                }
                Err(other) => return Err(other),
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        // Its answer changes nothing.
        let _ = tokio::time::timeout(QUIT_TIMEOUT, self.connection.quit()).await;
        Err(MailError::RecipientsRefused { host: host(), refused })
    }

    /// Sends the message. From its first byte on, only an answer tells whether the server has it. One that refuses it,
    /// whether for now (4xx) or for good (5xx), has not taken it (RFC 5321, 4.2.5).
    async fn deliver(&mut self, message: &[u8]) -> Result<String, NotDelivered> {
        let ready = self.command("the message", Data).await.map_err(NotDelivered::Refused)?;
        if ready.code().severity != Severity::PositiveIntermediate {
            let (host, code) = (self.settings.host.clone(), ready.code().into());
            let refused = MailError::Refused { host, what: "the message", code, text: text_of(&ready) };
            return Err(NotDelivered::Refused(refused));
        }
        let seconds = u64::try_from(message.len()).unwrap_or(u64::MAX) / LEAST_BYTES_PER_SECOND;
        let sent = self.connection.message(message);
        let answered = within(self.settings, Duration::from_secs(seconds), sent).await;
        let answer = answered.map_err(|_| NotDelivered::Unknown("it did not answer in time".to_owned()))?;
        match answer.map_err(|error| broken(self.settings, "the message", error)) {
            Ok(response) if response.code().severity == Severity::PositiveCompletion => {
                Ok(text_of(&response))
            }
            Ok(response) => Err(NotDelivered::Unknown(format!("it answered {}", shown(&text_of(&response))))),
            Err(refused @ MailError::Refused { .. }) => Err(NotDelivered::Refused(refused)),
            Err(_) => Err(NotDelivered::Unknown("the connection broke before it answered".to_owned())),
        }
    }

    async fn command(
        &mut self,
        what: &'static str,
        command: impl fmt::Display,
    ) -> Result<Response, MailError> {
        let answer = within(self.settings, Duration::ZERO, self.connection.command(command)).await?;
        answer.map_err(|error| broken(self.settings, what, error))
    }
}

/// A refusal, if the server answered, and else a broken connection.
pub(super) fn broken(settings: &SmtpSettings, what: &'static str, error: smtp::Error) -> MailError {
    let host = settings.host.clone();
    match error.status() {
        Some(code) => {
            let text = error.source().map(|text| shown(&text.to_string())).unwrap_or_default();
            MailError::Refused { host, what, code: code.into(), text }
        }
        None => MailError::BrokenOff { host, source: error },
    }
}

fn text_of(response: &Response) -> String {
    let text = response.message().collect::<Vec<_>>().join(" ");
    shown(&format!("{} {text}", response.code()))
}

/// A text of the server as one line, cut.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_SHOWN).collect()
}
