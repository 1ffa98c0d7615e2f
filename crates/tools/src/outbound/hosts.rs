//! How many requests one host gets at once, and when it asked to get none.
//!
//! A host here is a scheme, a name and a port.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_cache::BoundedCache;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{OutboundError, OutboundRequest};

/// Hosts that are remembered. A forgotten one is new again.
const MAX_HOSTS: u64 = 4096;
/// The longest time without requests that a host can ask for.
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// A longer pause is not waited for: the request fails, so that a retry can wait without holding anything.
const MAX_AWAITED_PAUSE: Duration = Duration::from_secs(5);

/// Headers that name the caller. The limits of a host are usually those of a key.
const CREDENTIALS: [&str; 6] =
    ["authorization", "x-api-key", "api-key", "x-auth-token", "private-token", "cookie"];

/// The hosts that requests were sent to. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    max_per_host: usize,
    rooms: BoundedCache<String, Arc<Semaphore>>,
    pauses: BoundedCache<Pause, Instant>,
    hashes: RandomState,
}

/// Who may send nothing to a host for a while.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pause {
    origin: String,
    /// Those with these credentials, as a hash; `None` for everybody.
    credentials: Option<u64>,
}

/// The permission to send a request. The next one gets it when it is dropped.
pub(super) struct Turn(Option<OwnedSemaphorePermit>);

impl Turn {
    /// Gives it to the next request.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

impl Hosts {
    pub(super) fn new(max_per_host: usize) -> Self {
        Self {
            max_per_host: max_per_host.clamp(1, Semaphore::MAX_PERMITS),
            rooms: BoundedCache::new("outbound_hosts", MAX_HOSTS),
            pauses: BoundedCache::new("outbound_pauses", MAX_HOSTS),
            hashes: RandomState::new(),
        }
    }

    /// Waits until the host of the request may get it. Cancel: safe, nothing was sent.
    ///
    /// # Errors
    /// [`OutboundError::Paused`] if the host wants nothing for more than 5 s; [`OutboundError::Busy`] if others had all
    /// turns for as long as the request may take.
    pub(super) async fn turn(&self, request: &OutboundRequest) -> Result<Turn, OutboundError> {
        let pause = self.pause_of(request);
        if pause > MAX_AWAITED_PAUSE.min(request.timeout) {
            return Err(OutboundError::Paused { host: request.host(), pause });
        }
        tokio::time::sleep(pause).await;
        let room = || Arc::new(Semaphore::new(self.max_per_host));
        let room = self.rooms.get_or_insert_with(&request.origin(), room);
        match tokio::time::timeout(request.timeout, room.acquire_owned()).await {
            // The semaphore is never closed.
            Ok(permit) => Ok(Turn(permit.ok())),
            Err(_) => Err(OutboundError::Busy { host: request.host(), limit: self.max_per_host }),
        }
    }

    /// Remembers what the answer says about the next requests: 429 is for those with the same credentials, 503 for all.
    pub(super) fn note(&self, request: &OutboundRequest, status: StatusCode, headers: &HeaderMap) {
        let credentials = match status {
            StatusCode::TOO_MANY_REQUESTS => Some(self.credentials_of(request)),
            StatusCode::SERVICE_UNAVAILABLE => None,
            _ => return,
        };
        if let Some(pause) = retry_after(headers, Utc::now()) {
            let until = Instant::now() + pause.min(MAX_PAUSE);
            self.pauses.insert(Pause { origin: request.origin(), credentials }, until);
        }
    }

    /// How long the host wants no such request.
    fn pause_of(&self, request: &OutboundRequest) -> Duration {
        let now = Instant::now();
        let of = |credentials| {
            let until = self.pauses.get(&Pause { origin: request.origin(), credentials });
            until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
        };
        of(None).max(of(Some(self.credentials_of(request))))
    }

    fn credentials_of(&self, request: &OutboundRequest) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        for name in CREDENTIALS {
            request.headers.get(name).map(AsRef::<[u8]>::as_ref).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The time of `Retry-After`: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    (date.to_utc() - now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_time_or_a_date() {
        let now = "2026-10-21T07:28:00Z".parse().unwrap();
        for (text, expected) in [
            ("120", Some(120)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", None),
            ("-1", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
    }

    fn request(url: &str, key: &str) -> OutboundRequest {
        OutboundRequest::new("GET", url).unwrap().header("Authorization", key).unwrap()
    }

    fn asks_for(seconds: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, seconds.parse().unwrap())])
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_holds_for_its_key_and_an_outage_for_all() {
        let hosts = Hosts::new(8);
        let (ours, theirs) = (request("http://a/", "ours"), request("http://a/x", "theirs"));
        hosts.note(&ours, StatusCode::TOO_MANY_REQUESTS, &asks_for("60"));
        let Err(error) = hosts.turn(&ours).await else { panic!("it has its turn") };
        assert_eq!(error.to_string(), "`a` asked for a pause: try again in 60 seconds");
        assert!(error.is_retryable() && !error.may_have_been_sent());
        assert!(hosts.turn(&theirs).await.is_ok());
        hosts.note(&ours, StatusCode::SERVICE_UNAVAILABLE, &asks_for("99999999999"));
        assert!(hosts.turn(&theirs).await.is_err());
        assert!(hosts.turn(&request("http://a:81/", "ours")).await.is_ok(), "another port is another host");
        tokio::time::advance(MAX_PAUSE).await;
        assert!(hosts.turn(&ours).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_pause_is_waited_for() {
        let hosts = Hosts::new(8);
        let request = request("http://a/", "k");
        hosts.note(&request, StatusCode::SERVICE_UNAVAILABLE, &asks_for("3"));
        let start = Instant::now();
        assert!(hosts.turn(&request).await.is_ok());
        assert_eq!(start.elapsed().as_secs(), 3);
        hosts.note(&request, StatusCode::OK, &asks_for("3"));
        hosts.note(&request, StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new());
        assert_eq!(hosts.pause_of(&request), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_host_gets_few_requests_at_once_and_others_are_free() {
        let hosts = Hosts::new(2);
        let request_a = request("http://a/", "k");
        let (first, _second) = (hosts.turn(&request_a).await, hosts.turn(&request_a).await);
        let Err(error) = hosts.turn(&request_a).await else { panic!("it has its turn") };
        assert_eq!(error.to_string(), "`a` already answers 2 requests, which is the limit for one host");
        assert!(error.is_retryable() && !error.may_have_been_sent());
        assert!(hosts.turn(&request("http://b/", "k")).await.is_ok());
        drop(first);
        assert!(hosts.turn(&request_a).await.is_ok());
    }

    /// A slow host, such as one with a model, is no reason to fail before the request's own time is over.
    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_as_long_as_the_request_may_take() {
        let hosts = Hosts::new(1);
        let slow = hosts.turn(&request("http://a/", "k")).await;
        let (start, patient) = (Instant::now(), request("http://a/", "k").timeout(Duration::from_secs(60)));
        let free_later = async {
            tokio::time::sleep(Duration::from_secs(50)).await;
            drop(slow);
        };
        let (turn, ()) = tokio::join!(hosts.turn(&patient), free_later);
        assert!(turn.is_ok());
        assert_eq!(start.elapsed().as_secs(), 50);
        let hasty = request("http://a/", "k").timeout(Duration::from_secs(2));
        let (Err(error), waited) = (hosts.turn(&hasty).await, start.elapsed().as_secs()) else {
            panic!("free")
        };
        assert!(matches!(error, OutboundError::Busy { .. }) && waited == 52, "{error:?} {waited}");
        drop(turn);
    }
}
