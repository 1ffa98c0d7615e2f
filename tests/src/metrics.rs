//! What a server says about itself at `/metrics`.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::Client;

/// One reading.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<(String, HashMap<String, String>, f64)>,
}

impl Metrics {
    /// Reads them from a server.
    ///
    /// # Errors
    /// If they are not given, or are in no form that Prometheus reads.
    pub async fn read(client: &Client) -> Result<Metrics> {
        let reply = client.get("/metrics").await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text);
        ensure!(reply.header("content-type").starts_with("text/plain"), "{:?}", reply.headers);
        Self::parse(&reply.text)
    }

    fn parse(text: &str) -> Result<Metrics> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| format!("no metric: {line}")));
        Ok(Metrics { samples: samples.collect::<Result<_>>()? })
    }

    /// The sum of the samples of this name that have all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |known: &HashMap<String, String>| {
            labels.iter().all(|(label, value)| known.get(*label).is_some_and(|other| other == value))
        };
        self.samples
            .iter()
            .filter(|(other, known, _)| other == name && fits(known))
            .map(|(_, _, value)| value)
            .sum()
    }

    /// Whether there is a sample of this name, with these labels whatever their values.
    pub fn has(&self, name: &str, labels: &[&str]) -> bool {
        let fits = |known: &HashMap<String, String>| labels.iter().all(|label| known.contains_key(*label));
        self.samples.iter().any(|(other, known, _)| other == name && fits(known))
    }

    /// The values that a label of a metric has.
    pub fn values(&self, name: &str, label: &str) -> Vec<&str> {
        let samples = self.samples.iter().filter(|(other, ..)| other == name);
        samples.filter_map(|(_, known, _)| known.get(label).map(String::as_str)).collect()
    }
}

fn sample(line: &str) -> Option<(String, HashMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series.to_owned(), HashMap::new(), value));
    };
    let mut known = HashMap::new();
    let mut rest = labels.strip_suffix('}')?;
    while let Some((label, after)) = rest.split_once("=\"") {
        let (text, after) = after.split_once('"')?;
        known.insert(label.trim_start_matches(',').to_owned(), text.to_owned());
        rest = after;
    }
    Some((name.to_owned(), known, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() -> Result<()> {
        let text = "# TYPE a counter\na{b=\"x\",route=\"/runs/{id}\"} 2\na{b=\"y\"} 3\n\nplain 0.5\n";
        let metrics = Metrics::parse(text)?;
        assert_eq!((metrics.sum("a", &[]), metrics.sum("a", &[("route", "/runs/{id}")])), (5.0, 2.0));
        assert_eq!(metrics.sum("plain", &[]), 0.5);
        assert!(metrics.has("a", &["b"]) && !metrics.has("plain", &["b"]) && !metrics.has("none", &[]));
        assert_eq!(metrics.values("a", "b"), ["x", "y"]);
        Ok(())
    }
}
