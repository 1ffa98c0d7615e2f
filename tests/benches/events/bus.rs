//! The bus of one process, beside a channel.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gathering_events::{Bus, BusSettings, Delivery, Event, Topics};
use tokio_util::sync::CancellationToken;

use crate::table::{Figure, Report};

const N_SUBSCRIBERS: usize = 4;
const N_KEYS: u64 = 1000;

pub(crate) async fn measure(n_events: u64, report: &mut Report) -> Result<()> {
    publish(n_events / 10).await?;
    let before = resident_bytes()?;
    let rate = publish(n_events).await?;
    let after = resident_bytes()?;
    let limit = ("the same through one `mpsc` channel", Figure::PerSecond(channel(n_events).await?));
    report.add(
        format!("events through the bus to {N_SUBSCRIBERS} subscribers"),
        Figure::PerSecond(rate),
        limit,
    );
    let what = "memory after all of them";
    report.add(what, Figure::Bytes(after), ("after a tenth of them", Figure::Bytes(before)));
    Ok(())
}

/// Each with a key, in the order of their publication to every subscriber.
async fn publish(n_events: u64) -> Result<f64> {
    // No repetition is dropped: the content differs.
    let settings = BusSettings {
        n_queued: 4096,
        n_buffered: 1 << 16,
        window: Duration::from_secs(1),
        ..BusSettings::default()
    };
    let (bus, service) = Bus::<u64>::new(settings);
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));
    let mut subscribers = Vec::new();
    for _ in 0..N_SUBSCRIBERS {
        let mut subscription = bus.subscribe(Topics::All)?;
        subscribers.push(tokio::spawn(async move {
            let mut n_seen = 0;
            while let Some(delivery) = subscription.recv().await {
                n_seen += match delivery {
                    Delivery::Events(events) => events.len() as u64,
                    Delivery::Lagged(n_lost) => n_lost,
                };
            }
            n_seen
        }));
    }
    let began = Instant::now();
    for number in 0..n_events {
        let key = Some((number % N_KEYS).to_string());
        bus.publish(Event { topic: "order.paid".to_owned(), key, payload: number }).await?;
    }
    stop.cancel();
    running.await?;
    for subscriber in subscribers {
        ensure!(subscriber.await? == n_events, "an event is missing");
    }
    Ok(n_events as f64 / began.elapsed().as_secs_f64())
}

async fn channel(n_events: u64) -> Result<f64> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4096);
    let receiving = tokio::spawn(async move {
        let mut n_seen = 0;
        while receiver.recv().await.is_some() {
            n_seen += 1;
        }
        n_seen
    });
    let began = Instant::now();
    for number in 0..n_events {
        let key = Some((number % N_KEYS).to_string());
        sender.send(Event { topic: "order.paid".to_owned(), key, payload: number }).await?;
    }
    drop(sender);
    ensure!(receiving.await? == n_events, "an event is missing");
    Ok(n_events as f64 / began.elapsed().as_secs_f64())
}

fn resident_bytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib * 1024.0)
}
