//! How often a client may send requests.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// So many requests at once, and so many more in each window, spread evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    n_requests: NonZeroU32,
    window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Window {
    Second,
    Minute,
    Hour,
}

impl Quota {
    /// Even the shortest window gives each of so many requests a microsecond.
    const MOST: u32 = 1_000_000;

    /// The most requests at once.
    pub const fn n_requests(&self) -> NonZeroU32 {
        self.n_requests
    }

    /// In what time so many become free again.
    pub const fn window(&self) -> Duration {
        Duration::from_secs(match self.window {
            Window::Second => 1,
            Window::Minute => 60,
            Window::Hour => 3600,
        })
    }

    const fn of(n_requests: u32, window: Window) -> Option<Self> {
        match NonZeroU32::new(n_requests) {
            Some(n_requests) if n_requests.get() <= Self::MOST => Some(Self { n_requests, window }),
            _ => None,
        }
    }
}

/// Reads `5/min`, `30/s` or `1000/h`; the error says so.
impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (n_requests, window) = text.split_once('/')?;
            let window = match window.trim() {
                "s" => Window::Second,
                "min" => Window::Minute,
                "h" => Window::Hour,
                _ => return None,
            };
            Self::of(n_requests.trim().parse().ok()?, window)
        };
        read().ok_or_else(|| {
            format!("`off`, or 1 to {} per second, minute or hour, such as 30/s, 5/min, 1000/h", Self::MOST)
        })
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = match self.window {
            Window::Second => "s",
            Window::Minute => "min",
            Window::Hour => "h",
        };
        write!(f, "{}/{window}", self.n_requests)
    }
}

/// How often one client may ask, by what for; absent: as often as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// What concerns passwords and tokens.
    pub auth: Option<Quota>,
    /// What changes something.
    pub write: Option<Quota>,
    /// What only reads.
    pub read: Option<Quota>,
    /// How the server is.
    pub health: Option<Quota>,
}

impl RateLimits {
    /// No limits at all.
    pub const OFF: Self = Self { auth: None, write: None, read: None, health: None };
}

impl Default for RateLimits {
    /// 5 a minute, 30 a second, 120 a second, and none.
    fn default() -> Self {
        Self {
            auth: Quota::of(5, Window::Minute),
            write: Quota::of(30, Window::Second),
            read: Quota::of(120, Window::Second),
            health: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_number_and_a_window() {
        let read = |text: &str| {
            let quota: Quota = text.parse().unwrap();
            (quota.n_requests().get(), quota.window().as_secs())
        };
        assert_eq!(read("5/min"), (5, 60));
        assert_eq!(read(" 30 / s"), (30, 1));
        assert_eq!(read("1000000/h"), (1_000_000, 3600));
        for text in [
            "",
            "5",
            "5/",
            "/s",
            "0/s",
            "-1/s",
            "1.5/s",
            "5/m",
            "5/day",
            "1000001/s",
            "5/s/s",
            "99999999999/s",
        ] {
            let error = text.parse::<Quota>().unwrap_err();
            assert!(error.contains("5/min"), "{text}: {error}");
        }
    }
}
