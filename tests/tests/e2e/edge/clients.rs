//! What takes its time: clients that send slowly, and files that are large.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Client, Database, Raw, Server, head};

/// When a head must have come, a JSON body, and the next piece of an upload.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// How long a connection may be without a request after an answer, whatever arrives on it.
const PAUSE_LIMIT: Duration = Duration::from_secs(85);
/// How much later the server may notice, on a busy machine.
const LENIENCE: Duration = Duration::from_secs(10);
/// Between two bytes of a client that sends slowly.
const PAUSE: Duration = Duration::from_millis(250);

/// Sends byte by byte until the server has had enough, and checks when that is and what it says.
async fn drip(address: String, first: Vec<u8>, drop: &'static [u8], limit: Duration) -> Result<()> {
    drip_on(Raw::connect(&address).await?, first, drop, limit).await
}

/// The same on a connection that is there.
async fn drip_on(mut raw: Raw, first: Vec<u8>, drop: &'static [u8], limit: Duration) -> Result<()> {
    raw.send(first).await?;
    let begun = Instant::now();
    let answer = loop {
        if let Ok(answer) = raw.closed(PAUSE).await {
            break answer;
        }
        ensure!(begun.elapsed() < limit + LENIENCE, "still open after {:?}", begun.elapsed());
        // Nothing more is sent by a client that has stopped, and nothing arrives where the server has.
        raw.send(drop).await.ok();
    };
    let took = begun.elapsed();
    ensure!(took + Duration::from_secs(2) >= limit, "cut off after {took:?} of {limit:?}");
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_byte_by_byte_is_cut_off_while_others_are_served() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("slow").await?;
    let bearer = format!("Bearer {}", ada.token().context("no token")?);
    let login = [("content-type", "application/json")];
    let body = head("POST", "/api/v1/auth/login", &login, 10_000);
    let file = format!("/api/v1/projects/{project}/files/a/slow.txt");
    let upload = head("PUT", &file, &[("authorization", &bearer)], 10_000);
    let mut slow = tokio::task::JoinSet::new();
    let address = || server.address().to_owned();
    for _ in 0..20 {
        slow.spawn(drip(address(), b"GET /health/live HTTP/1.1\r\nx: ".to_vec(), b"x", HEAD_LIMIT));
        slow.spawn(drip(address(), body.clone(), b" ", BODY_LIMIT));
        // An upload may be slow, but it may not stop.
        slow.spawn(drip(address(), [upload.as_slice(), b"begun"].concat(), b"", BODY_LIMIT));
    }
    while !slow.is_empty() {
        tokio::select! {
            Some(ended) = slow.join_next() => ended??,
            served = serve_one(&ada) => served?,
        }
    }
    ada.get(&file).await?.expect_problem(404, "not-found")?;
    let left = std::fs::read_dir(database.files_of(&project)).into_iter().flatten().flatten();
    let left: Vec<_> = left.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_in_the_head_of_a_later_request_is_cut_off() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let mut slow = tokio::task::JoinSet::new();
    // One letter and then silence, or one letter at a time.
    for drop in [&b""[..], b"x"] {
        for _ in 0..5 {
            let mut raw = Raw::connect(server.address()).await?;
            raw.request("GET", "/health/live", &[], b"").await?;
            ensure!(raw.reply().await?.status == 200, "the first request is answered");
            let first = if drop.is_empty() { b"G".to_vec() } else { b"GET / HTTP/1.1\r\nx: ".to_vec() };
            slow.spawn(drip_on(raw, first, drop, PAUSE_LIMIT));
        }
    }
    while let Some(ended) = slow.join_next().await {
        ended??;
    }
    Ok(())
}

/// One request, which is answered promptly.
async fn serve_one(client: &Client) -> Result<()> {
    let begun = Instant::now();
    client.get("/api/v1/auth/me").await?.expect(200)?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "served after {:?}", begun.elapsed());
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

const SIZE: u64 = 1 << 30;
const MOST_MEMORY: u64 = 200 << 20;

/// Pieces that are all different, as a file system could keep equal ones once.
fn piece(number: u64, piece: &mut [u8]) {
    for (word, place) in (number << 32..).zip(piece.chunks_exact_mut(8)) {
        place.copy_from_slice(&word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_up_and_down_in_little_memory() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("large").await?;
    let bearer = format!("Bearer {}", ada.token().context("no token")?);
    let path = format!("/api/v1/projects/{project}/files/large.bin");
    let mut raw = Raw::connect(server.address()).await?;
    raw.send(head("PUT", &path, &[("authorization", &bearer)], SIZE)).await?;
    let (mut sent, mut block) = (blake3::Hasher::new(), vec![0; 4 << 20]);
    for number in 0..SIZE / block.len() as u64 {
        piece(number, &mut block);
        sent.update(&block);
        raw.send(&block).await?;
    }
    let stored = raw.reply().await?;
    assert_eq!(stored.status, 201, "{}", stored.text());
    raw.send(head("GET", &path, &[("authorization", &bearer)], 0)).await?;
    let (mut received, mut length) = (blake3::Hasher::new(), 0);
    let (status, headers) = raw
        .reply_into(|bytes| {
            received.update(bytes);
            length += bytes.len() as u64;
        })
        .await?;
    assert_eq!((status, length), (200, SIZE), "{headers:?}");
    assert_eq!(received.finalize(), sent.finalize(), "not the bytes that were sent");
    let etag = headers.iter().find(|(name, _)| name == "etag").map(|(_, value)| value.as_str());
    assert_eq!(etag, Some(stored.header("etag")));
    let peak = server.peak_memory_bytes()?;
    assert!(peak < MOST_MEMORY, "the server held {} MiB", peak >> 20);
    Ok(())
}
