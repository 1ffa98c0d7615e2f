//! What a call does with its connection.

use std::time::Duration;

use gathering_agents::{ChatModel as _, OpenAiCompatible};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::openai::question;
use crate::support::{delta, events, read_request};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

async fn listener() -> (TcpListener, OpenAiCompatible) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    (listener, OpenAiCompatible::new(&url, None).unwrap())
}

async fn send(stream: &mut TcpStream, part: &str) {
    stream.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn a_server_notices_when_the_caller_is_gone() {
    let (listener, provider) = listener().await;
    let call = tokio::spawn(async move { provider.complete(&question()).await.map(|_| ()) });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await.unwrap();
    stream.write_all(HEAD.as_bytes()).await.unwrap();
    send(&mut stream, &events(&[delta(json!({"content": "Hel"}))])).await;
    call.abort();
    // The end of the connection, or that it is reset.
    let left = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await.unwrap();
    assert_eq!(left.unwrap_or_default(), 0);
}

#[tokio::test]
async fn the_connection_of_a_complete_stream_is_used_again() {
    let (listener, provider) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        for _ in 0..2 {
            read_request(&mut stream).await.unwrap();
            stream.write_all(HEAD.as_bytes()).await.unwrap();
            send(&mut stream, &events(&[delta(json!({"content": "Hello."}))])).await;
            send(&mut stream, "data: [DONE]\n\n").await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    });
    let provider = provider.timeout(Duration::from_secs(5));
    for _ in 0..2 {
        assert_eq!(provider.complete(&question()).await.unwrap().content, "Hello.");
    }
    server.await.unwrap();
}
