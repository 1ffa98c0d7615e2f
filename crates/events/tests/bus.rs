//! The guarantees of the bus, under virtual time.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::time::Duration;

use gathering_events::{
    Bus, BusCounts, BusSettings, Delivery, Event, PublishError, SubscribeError, Subscription, Topics,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SMALL: BusSettings = BusSettings {
    n_queued: 4,
    n_buffered: 8,
    max_batch: 3,
    max_subscribers: 2,
    window: Duration::from_secs(1),
    max_keys: 16,
};

fn event(topic: &str, key: Option<&str>, payload: impl Into<Value>) -> Event {
    Event { topic: topic.to_owned(), key: key.map(str::to_owned), payload: payload.into() }
}

fn start(settings: BusSettings) -> (Bus, CancellationToken, JoinHandle<()>) {
    let (bus, service) = Bus::new(settings);
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));
    (bus, stop, running)
}

async fn end(stop: CancellationToken, running: JoinHandle<()>) {
    stop.cancel();
    running.await.unwrap();
}

/// The payloads of all remaining events, with a text in place of lost ones.
async fn rest(subscription: &mut Subscription) -> Vec<Value> {
    let mut payloads = Vec::new();
    while let Some(delivery) = subscription.recv().await {
        match delivery {
            Delivery::Lagged(n_lost) => payloads.push(json!(format!("{n_lost} lost"))),
            Delivery::Events(events) => {
                assert!((1..=3).contains(&events.len()), "a batch has its limit");
                payloads.extend(events.iter().map(|event| event.payload.clone()));
            }
        }
    }
    payloads
}

#[tokio::test(start_paused = true)]
async fn events_of_a_key_arrive_in_publication_order() {
    let (bus, stop, running) = start(BusSettings { n_buffered: 1000, ..SMALL });
    let mut all = bus.subscribe(Topics::All).unwrap();
    let publishers = ["a", "b", "c"].map(|key| {
        let bus = bus.clone();
        tokio::spawn(async move {
            for number in 0..100 {
                bus.publish(event("t", Some(key), format!("{key}{number:03}"))).await.unwrap();
            }
        })
    });
    for publisher in publishers {
        publisher.await.unwrap();
    }
    end(stop, running).await;
    let seen = rest(&mut all).await;
    assert_eq!(seen.len(), 300);
    for key in ["a", "b", "c"] {
        let of_key: Vec<&str> =
            seen.iter().filter_map(Value::as_str).filter(|text| text.starts_with(key)).collect();
        assert!(of_key.is_sorted() && of_key.len() == 100);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_events_arrive_in_batches() {
    let (bus, service) = Bus::new(SMALL);
    let mut all = bus.subscribe(Topics::All).unwrap();
    for number in 0..4 {
        bus.publish(event("t", None, number)).await.unwrap();
    }
    let stop = CancellationToken::new();
    end(stop.clone(), tokio::spawn(service.run(stop))).await;
    let Some(Delivery::Events(first)) = all.recv().await else { panic!() };
    assert_eq!(first.len(), 3);
    assert_eq!(rest(&mut all).await, [json!(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_repetition_within_the_window_is_dropped() {
    let (bus, stop, running) = start(BusSettings { n_buffered: 100, ..SMALL });
    let mut all = bus.subscribe(Topics::All).unwrap();
    let say = async |topic: &str, key: Option<&str>, payload: &str| {
        let n_taken = bus.counts().n_taken;
        bus.publish(event(topic, key, payload)).await.unwrap();
        while bus.counts().n_taken == n_taken {
            tokio::task::yield_now().await;
        }
    };
    say("t", Some("k"), "1 is new").await;
    say("t", Some("k"), "1 is new").await;
    say("t", Some("other"), "2 has another key").await;
    say("u", Some("k"), "3 has another topic").await;
    say("t", Some("k"), "4 says something else").await;
    say("t", Some("k"), "5 goes").await;
    say("t", Some("k"), "4 says something else").await;
    say("t", None, "6 has no key").await;
    say("t", None, "6 has no key").await;
    tokio::time::sleep(Duration::from_millis(999)).await;
    say("t", Some("k"), "4 says something else").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    say("t", Some("k"), "4 says something else").await;
    end(stop, running).await;
    let seen: Vec<String> =
        rest(&mut all).await.iter().map(|payload| payload.to_string()[1..2].to_owned()).collect();
    assert_eq!(seen.join(""), "123454664");
    assert_eq!(bus.counts(), BusCounts { n_taken: 11, n_repetitions: 2, n_lost: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_publisher_waits_when_the_queue_is_full() {
    let (bus, service) = Bus::new(SMALL);
    for number in 0..4 {
        bus.try_publish(event("t", None, number)).unwrap();
    }
    assert_eq!(bus.try_publish(event("t", None, 4)), Err(PublishError::Full));
    let waited = tokio::time::timeout(Duration::from_secs(3600), bus.publish(event("t", None, 4))).await;
    assert!(waited.is_err(), "nobody delivers, so it waits for ever");
    let mut all = bus.subscribe(Topics::All).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));
    bus.publish(event("t", None, 5)).await.unwrap();
    end(stop, running).await;
    assert_eq!(rest(&mut all).await, [0, 1, 2, 3, 5].map(Value::from), "4 was cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_loses_the_oldest_and_learns_how_many_while_others_get_all() {
    let (bus, stop, running) = start(SMALL);
    let mut slow = bus.subscribe(Topics::All).unwrap();
    let mut quick = bus.subscribe(Topics::All).unwrap();
    let quick = tokio::spawn(async move { rest(&mut quick).await });
    for number in 0..20 {
        bus.publish(event("t", None, number)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await; // virtual: everybody else has had their turn
    }
    assert_eq!(slow.recv().await, Some(Delivery::Lagged(12)));
    bus.publish(event("t", None, 20)).await.unwrap();
    end(stop, running).await;
    let mut newest: Vec<Value> = vec![json!("1 lost")];
    newest.extend((13..=20).map(Value::from));
    assert_eq!(rest(&mut slow).await, newest);
    assert_eq!(quick.await.unwrap(), (0..=20).map(Value::from).collect::<Vec<_>>());
    assert_eq!(bus.counts().n_lost, 13);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_only_its_topics_from_subscribing_on() {
    let (bus, stop, running) = start(SMALL);
    let mut early = bus.subscribe(Topics::Of(vec!["a".to_owned(), "b".to_owned()])).unwrap();
    for (topic, payload) in [("a", 1), ("c", 2), ("b", 3)] {
        bus.publish(event(topic, None, payload)).await.unwrap();
    }
    while bus.counts().n_taken < 3 {
        tokio::task::yield_now().await;
    }
    let mut late = bus.subscribe(Topics::All).unwrap();
    bus.publish(event("a", None, 4)).await.unwrap();
    end(stop, running).await;
    assert_eq!(rest(&mut early).await, [1, 3, 4].map(Value::from));
    assert_eq!(rest(&mut late).await, [json!(4)]);
}

#[tokio::test(start_paused = true)]
async fn events_before_the_stop_arrive_and_later_ones_do_not() {
    let (bus, stop, running) = start(SMALL);
    let mut all = bus.subscribe(Topics::All).unwrap();
    for number in 0..4 {
        bus.publish(event("t", None, number)).await.unwrap();
    }
    stop.cancel();
    stop.cancel();
    running.await.unwrap();
    assert_eq!(bus.publish(event("t", None, 9)).await, Err(PublishError::Ended));
    assert_eq!(bus.try_publish(event("t", None, 9)), Err(PublishError::Ended));
    assert_eq!(bus.subscribe(Topics::All).unwrap_err(), SubscribeError::Ended);
    assert_eq!(rest(&mut all).await, [0, 1, 2, 3].map(Value::from));
    assert_eq!(all.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_service_leaves_nobody_waiting() {
    let (bus, _stop, running) = start(SMALL);
    let mut all = bus.subscribe(Topics::All).unwrap();
    let waiting = tokio::spawn(async move { all.recv().await });
    running.abort();
    assert_eq!(waiting.await.unwrap(), None);
    assert_eq!(bus.publish(event("t", None, 1)).await, Err(PublishError::Ended));
}

#[tokio::test(start_paused = true)]
async fn the_service_ends_when_every_bus_was_dropped() {
    let (bus, _stop, running) = start(SMALL);
    drop(bus);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn subscribers_are_bounded_and_a_dropped_one_makes_room() {
    let (bus, stop, running) = start(SMALL);
    let first = bus.subscribe(Topics::All).unwrap();
    let _second = bus.subscribe(Topics::All).unwrap();
    assert_eq!(bus.subscribe(Topics::All).unwrap_err(), SubscribeError::TooMany { max_subscribers: 2 });
    drop(first);
    assert!(bus.subscribe(Topics::All).is_ok());
    end(stop, running).await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_receive_loses_no_event() {
    let (bus, stop, running) = start(SMALL);
    let mut all = bus.subscribe(Topics::All).unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), all.recv()).await.is_err());
    bus.publish(event("t", None, 1)).await.unwrap();
    end(stop, running).await;
    assert_eq!(rest(&mut all).await, [json!(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_what_it_wants_of_any_content() {
    let (bus, service) = Bus::<u32>::new(SMALL);
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));
    let mut even = bus.subscribe_where(|event| event.payload % 2 == 0).unwrap();
    for payload in 0..4 {
        bus.publish(Event { topic: "t".to_owned(), key: None, payload }).await.unwrap();
    }
    end(stop, running).await;
    let mut seen = Vec::new();
    while let Some(Delivery::Events(events)) = even.recv().await {
        seen.extend(events.iter().map(|event| event.payload));
    }
    assert_eq!(seen, [0, 2]);
}
