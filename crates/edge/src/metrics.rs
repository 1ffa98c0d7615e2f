//! The metrics of this process: the recorder for all crates, the metrics of requests, and the text for Prometheus.
//!
//! Owns the names of the metrics of requests. Labels come from closed sets, so that no client can create series.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

const REQUESTS: &str = "gathering_http_requests_total";
const DURATION: &str = "gathering_http_request_duration_seconds";
const RATE_LIMITED: &str = "gathering_rate_limited_total";

/// The upper bounds of a histogram's buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The recorder keeps every duration until a scrape sums them up. Without scrapes, this many requests trigger it.
const SUM_UP_AFTER: u64 = 4096;

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The buckets of a histogram are refused.
    #[error("the metrics cannot be recorded")]
    Recorder(#[from] BuildError),
    /// The process has a recorder already.
    #[error("the process records metrics already")]
    Taken(#[from] metrics::SetRecorderError<PrometheusRecorder>),
}

/// The metrics of this process. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    recorded: PrometheusHandle,
    n_requests: Arc<AtomicU64>,
}

impl Metrics {
    /// Starts to record the metrics of all crates. Create what keeps metric handles, such as a cache, after this.
    ///
    /// # Errors
    /// If the process has a recorder already.
    pub fn install() -> Result<Self, InstallError> {
        let (recorder, metrics) = Self::recorder()?;
        metrics::set_global_recorder(recorder)?;
        describe();
        Ok(metrics)
    }

    fn recorder() -> Result<(PrometheusRecorder, Self), BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), &BUCKETS)?
            .build_recorder();
        let metrics = Self { recorded: recorder.handle(), n_requests: Arc::default() };
        Ok((recorder, metrics))
    }

    /// Everything recorded, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.recorded.render()
    }

    /// Counts an answered request; `took` is the time until the head of the answer was ready.
    pub fn count_request(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let (method, route) = (method_label(method), route.to_owned());
        let status = status.as_u16().to_string();
        metrics::counter!(REQUESTS, "method" => method, "route" => route.clone(), "status" => status)
            .increment(1);
        metrics::histogram!(DURATION, "method" => method, "route" => route).record(took.as_secs_f64());
        if self.n_requests.fetch_add(1, Ordering::Relaxed) % SUM_UP_AFTER == SUM_UP_AFTER - 1 {
            self.recorded.run_upkeep();
        }
    }
}

/// A client may send any method name.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn describe() {
    metrics::describe_counter!(REQUESTS, "Requests that were answered.");
    metrics::describe_histogram!(
        DURATION,
        "How long requests took until the head of their answer was ready."
    );
    metrics::describe_counter!(RATE_LIMITED, "Requests that were refused because of a rate limit.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_and_its_duration_falls_into_its_bucket() {
        let (recorder, metrics) = Metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            let count = |status: u16, millis| {
                let status = StatusCode::from_u16(status).unwrap();
                metrics.count_request(
                    &Method::GET,
                    "/api/v1/runs/{id}",
                    status,
                    Duration::from_millis(millis),
                );
            };
            count(200, 3);
            count(200, 30);
            count(404, 20_000);
        });
        let text = metrics.recorded.render();
        let labels = r#"method="GET",route="/api/v1/runs/{id}""#;
        for line in [
            format!(r#"{REQUESTS}{{{labels},status="200"}} 2"#),
            format!(r#"{REQUESTS}{{{labels},status="404"}} 1"#),
            format!(r#"{DURATION}_bucket{{{labels},le="0.0025"}} 0"#),
            format!(r#"{DURATION}_bucket{{{labels},le="0.005"}} 1"#),
            format!(r#"{DURATION}_bucket{{{labels},le="10"}} 2"#),
            format!(r#"{DURATION}_bucket{{{labels},le="+Inf"}} 3"#),
            format!("{DURATION}_count{{{labels}}} 3"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_client_cannot_create_labels() {
        let (recorder, metrics) = Metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            for name in ["BREW", "STEEP", "get"] {
                let method = Method::from_bytes(name.as_bytes()).unwrap();
                metrics.count_request(&method, "unknown", StatusCode::NOT_FOUND, Duration::ZERO);
            }
        });
        let text = metrics.recorded.render();
        assert!(
            text.contains(&format!(r#"{REQUESTS}{{method="other",route="unknown",status="404"}} 3"#)),
            "{text}"
        );
        assert!(!text.contains("BREW"), "{text}");
    }
}
