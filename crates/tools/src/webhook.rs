//! Signed webhooks: keys, the signatures of the Standard Webhooks specification, and those of well-known senders.
//!
//! Owns how a message is signed and how a signature is verified. Never knows where messages go or come from.

mod keys;
mod received;
mod signature;

pub use keys::{InvalidWebhookKey, InvalidWebhookKeys, WebhookKey, WebhookKeys};
pub use received::{HOOK_TOKEN_HEADER, ReceivedHeaders, ReceivedWebhook, UntrustedWebhook, WebhookScheme};
pub use signature::{
    InvalidWebhookSignature, SignedWebhook, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, sign_webhook,
    verify_webhook,
};
