//! E-mail to one mail server of the operator, by SMTP.
//!
//! Owns what a message is made of, the talk with the server, and what a failure says about the delivery. Never knows why a
//! message is sent.

mod address;
mod client;
mod connect;
mod error;
mod message;
mod settings;

pub use address::{InvalidMailAddress, MailAddress};
pub use client::{Mailer, SentMail};
pub use error::{MailError, RefusedRecipient};
pub use message::{Attachment, Mail};
pub use settings::{InvalidSmtpTls, SmtpLogin, SmtpSettings, SmtpTls};
