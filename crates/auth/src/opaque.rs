//! Random texts with a meaning only for the store: a prefix and 32 random bytes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gathering_domain::{Digest, ExposeSecret, Secret};
use pasetors::keys::{Generate, SymmetricKey};
use pasetors::version4::V4;

/// 32 bytes in base64url without padding.
const BODY_LENGTH: usize = 43;

/// A prefix that names the use, and 32 random bytes in base64url. It has no `Debug`.
#[derive(Clone)]
pub(crate) struct OpaqueToken(Secret);

impl OpaqueToken {
    /// A new text; `None` if the system provides no randomness.
    pub(crate) fn generate(prefix: &str) -> Option<Self> {
        // A symmetric key of PASETO v4 is 32 bytes from the system's generator, wiped when dropped.
        let bytes = SymmetricKey::<V4>::generate().ok()?;
        Some(Self(Secret::from(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes.as_bytes())))))
    }

    /// Parses a text from a client; `None` if it cannot have this prefix and form.
    pub(crate) fn parse(prefix: &str, text: &str) -> Option<Self> {
        let body = text.strip_prefix(prefix).filter(|body| body.len() == BODY_LENGTH)?;
        let is_base64url =
            body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        is_base64url.then(|| Self(Secret::from(text)))
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.0.expose_secret().as_bytes())
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// A kind of opaque token: a newtype with its own prefix, whose `Debug` does not show it.
macro_rules! opaque_token {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $generate:vis) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name($crate::opaque::OpaqueToken);

        impl $name {
            /// The prefix identifies leaked texts in logs and secret scanners.
            const PREFIX: &str = $prefix;

            /// A new one; `None` if the system provides no randomness.
            $generate fn generate() -> Option<Self> {
                $crate::opaque::OpaqueToken::generate(Self::PREFIX).map(Self)
            }

            /// Parses a text from a client; `None` if it cannot be one of ours.
            pub fn parse(text: &str) -> Option<Self> {
                $crate::opaque::OpaqueToken::parse(Self::PREFIX, text).map(Self)
            }

            /// The digest that is stored. A plain digest suffices, because there are 256 random bits to guess.
            pub fn digest(&self) -> gathering_domain::Digest {
                self.0.digest()
            }

            /// The text for the client. Do not log it.
            pub fn expose(&self) -> &str {
                self.0.expose()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

pub(crate) use opaque_token;
