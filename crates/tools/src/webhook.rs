//! Signed webhooks: keys, and the signatures of the Standard Webhooks specification.
//!
//! Owns how a message is signed and how a signature is verified. Never knows where messages go or come from.

mod keys;
mod signature;

pub use keys::{InvalidWebhookKey, InvalidWebhookKeys, WebhookKey, WebhookKeys};
pub use signature::{
    InvalidWebhookSignature, SignedWebhook, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, sign_webhook,
    verify_webhook,
};
