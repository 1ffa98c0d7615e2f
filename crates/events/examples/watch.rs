//! Three subscribers: to a topic, to what a function wants, and one that does not keep up.
//!
//! `cargo run -p gathering-events --example watch`

use gathering_events::{Bus, BusSettings, Delivery, Event, Subscription, Topics};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (bus, service) = Bus::<Value>::new(BusSettings { n_buffered: 3, ..BusSettings::default() });
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));

    let ends = bus.subscribe(Topics::Of(vec!["run_ended".to_owned()]))?;
    let second = bus.subscribe_where(|event| event.payload["run"] == 2)?;
    let everything = bus.subscribe(Topics::All)?;
    for number in 1..=3 {
        for topic in ["run_started", "run_ended", "run_ended"] {
            let key = Some(format!("run-{number}"));
            bus.publish(Event { topic: topic.to_owned(), key, payload: json!({ "run": number }) }).await?;
        }
    }
    stop.cancel();
    running.await?;

    show("ends", ends).await;
    show("second", second).await;
    show("everything", everything).await;
    say(&format!("{:?}", bus.counts()));
    Ok(())
}

async fn show(name: &str, mut subscription: Subscription) {
    while let Some(delivery) = subscription.recv().await {
        match delivery {
            Delivery::Lagged(n_lost) => say(&format!("{name}: {n_lost} lost")),
            Delivery::Events(events) => {
                for event in events {
                    say(&format!("{name}: {} {}", event.topic, event.payload));
                }
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn say(line: &str) {
    println!("{line}");
}
