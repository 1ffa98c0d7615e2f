//! Ends connections that stay without a request for too long.
//!
//! The HTTP layer limits the head of the first request of a connection and the silence after an answer. The first byte
//! after an answer ends that limit, and no other starts. The limit here covers every pause between answers, whatever
//! arrives in it. Knows when a request is in flight, never its content.

use std::any::Any;
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest};
use actix_web::web::Bytes;
use tokio_util::sync::CancellationToken;

/// The number of checks within the limit: a connection may exceed it by one part of this.
const LOOKS: u32 = 16;

/// The open connections. Cloning shares them; there are never more than the server accepts.
#[derive(Clone)]
pub struct Connections(Arc<Registry>);

struct Registry {
    limit: Duration,
    begun: Instant,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
}

struct Connection {
    /// Another handle of the same socket.
    socket: TcpStream,
    n_in_flight: AtomicU32,
    /// In milliseconds since the registry was created.
    idle_since: AtomicU64,
}

/// The entry of a connection in the registry; dropping it removes the connection.
pub struct Registered {
    registry: Arc<Registry>,
    number: u64,
    connection: Arc<Connection>,
}

/// A request in flight, until this is dropped.
pub struct InFlight {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
}

impl Connections {
    /// An empty registry; `limit` is the longest time without a request.
    pub fn new(limit: Duration) -> Self {
        let (next, open) = (AtomicU64::new(0), Mutex::default());
        Self(Arc::new(Registry { limit, begun: Instant::now(), next, open }))
    }

    /// Registers a connection that was just accepted; its entry goes into its data.
    pub fn register(&self, connection: &dyn Any, data: &mut Extensions) {
        let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
        match stream.as_fd().try_clone_to_owned() {
            Ok(socket) => {
                data.insert(self.registered(socket.into()));
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot watch a connection; only the HTTP time-outs apply: {error}")
            }
        }
    }

    fn registered(&self, socket: TcpStream) -> Registered {
        let registry = Arc::clone(&self.0);
        let idle_since = AtomicU64::new(registry.now());
        let connection = Arc::new(Connection { socket, n_in_flight: AtomicU32::new(0), idle_since });
        let number = registry.next.fetch_add(1, Ordering::Relaxed);
        registry.locked().insert(number, Arc::clone(&connection));
        Registered { registry, number, connection }
    }

    /// Ends the connections that exceed the limit, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let pause = self.0.limit / LOOKS;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            self.0.end_idle();
        }
    }

    /// How many are open.
    #[cfg(test)]
    fn n_open(&self) -> usize {
        self.0.locked().len()
    }
}

impl Registry {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Held for a few operations on memory, and while the sockets of those that are over their time are shut down.
    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_idle(&self) {
        let limit = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
        let now = self.now();
        for connection in self.locked().values() {
            let is_idle = connection.n_in_flight.load(Ordering::Acquire) == 0;
            if is_idle && now.saturating_sub(connection.idle_since.load(Ordering::Relaxed)) > limit {
                // The HTTP layer sees the end of what the client sends, as if the client had closed that half: it
                // delivers what is left of an answer and closes. One that is gone already is as well.
                connection.socket.shutdown(Shutdown::Read).ok();
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.locked().remove(&self.number);
    }
}

impl InFlight {
    /// Marks this request as in flight; `None` where its connection is not registered.
    pub fn begin(request: &ServiceRequest) -> Option<Self> {
        let registered = request.conn_data::<Registered>()?;
        registered.connection.n_in_flight.fetch_add(1, Ordering::AcqRel);
        Some(Self {
            registry: Arc::clone(&registered.registry),
            connection: Arc::clone(&registered.connection),
        })
    }

    /// Ties the request to the body of the answer. A body that is complete already costs nothing more.
    pub fn until_sent(self, body: BoxBody) -> BoxBody {
        match body.try_into_bytes() {
            Ok(bytes) => BoxBody::new(bytes),
            Err(body) => BoxBody::new(Answer { body, _in_flight: self }),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.idle_since.store(self.registry.now(), Ordering::Relaxed);
        self.connection.n_in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A body that is made while it is sent.
struct Answer {
    body: BoxBody,
    _in_flight: InFlight,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.body.as_pin_mut().poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use actix_web::dev::ServerHandle;
    use actix_web::middleware::from_fn;
    use actix_web::{App, HttpResponse, HttpServer, web};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream as Client;
    use tokio::sync::watch;

    use super::*;
    use crate::envelope::envelope;

    const LIMIT: Duration = Duration::from_millis(300);
    /// More than anything here may take on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    struct World {
        address: SocketAddr,
        connections: Connections,
        /// Ends the answers of `/held`.
        release: watch::Sender<bool>,
        stop: CancellationToken,
        server: ServerHandle,
    }

    impl World {
        fn start() -> Self {
            let connections = Connections::new(LIMIT);
            let (release, released) = watch::channel(false);
            let held = move || {
                let mut released = released.clone();
                let body = async_stream(async move {
                    released.wait_for(|released| *released).await.ok();
                });
                std::future::ready(HttpResponse::Ok().streaming(body))
            };
            let registering = connections.clone();
            let http = HttpServer::new(move || {
                let held = held.clone();
                App::new()
                    .wrap(from_fn(envelope))
                    .route("/", web::get().to(|| std::future::ready("whole")))
                    .route("/held", web::get().to(held))
            });
            let http = http
                .workers(1)
                .disable_signals()
                .on_connect(move |connection, data| registering.register(connection, data))
                .bind("127.0.0.1:0")
                .unwrap();
            let address = http.addrs()[0];
            let server = http.run();
            let handle = server.handle();
            actix_web::rt::spawn(server);
            let stop = CancellationToken::new();
            actix_web::rt::spawn(connections.clone().run(stop.clone()));
            Self { address, connections, release, stop, server: handle }
        }

        async fn ask(&self, target: &str) -> Client {
            let mut client = Client::connect(self.address).await.unwrap();
            client.write_all(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
            client
        }

        async fn stop(self) {
            self.stop.cancel();
            self.server.stop(false).await;
        }
    }

    /// Two pieces, with `between` between them.
    fn async_stream(
        between: impl Future<Output = ()> + 'static,
    ) -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> {
        use futures::StreamExt as _;
        let first = futures::stream::iter([Ok(Bytes::from_static(b"begun"))]);
        first.chain(futures::stream::once(async {
            between.await;
            Ok(Bytes::from_static(b"ended"))
        }))
    }

    async fn read_until(client: &mut Client, end: &str) {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            let n_read = tokio::time::timeout(PATIENCE, client.read_buf(&mut read)).await.unwrap().unwrap();
            assert!(n_read > 0, "closed after {:?}", String::from_utf8_lossy(&read));
        }
    }

    async fn read_to_close(client: &mut Client) -> String {
        let mut read = Vec::new();
        tokio::time::timeout(PATIENCE, client.read_to_end(&mut read)).await.unwrap().unwrap();
        String::from_utf8(read).unwrap()
    }

    #[actix_web::test]
    async fn who_begins_another_request_and_says_no_more_is_cut_off() {
        let world = World::start();
        let mut client = world.ask("/").await;
        read_until(&mut client, "whole").await;
        client.write_all(b"G").await.unwrap();
        let begun = Instant::now();
        assert_eq!(read_to_close(&mut client).await, "");
        assert!(begun.elapsed() >= LIMIT / 2, "cut off after {:?}", begun.elapsed());
        world.stop().await;
    }

    #[actix_web::test]
    async fn an_answer_that_takes_its_time_is_not_cut_off_and_its_connection_goes_on() {
        let world = World::start();
        let mut slow = world.ask("/held").await;
        read_until(&mut slow, "begun").await;
        // Once this one is cut off, which came later, the time of the other would be over as well.
        let mut other = world.ask("/").await;
        read_until(&mut other, "whole").await;
        other.write_all(b"G").await.unwrap();
        read_to_close(&mut other).await;
        world.release.send_replace(true);
        read_until(&mut slow, "ended\r\n0\r\n\r\n").await;
        slow.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        read_until(&mut slow, "whole").await;
        world.stop().await;
    }

    #[actix_web::test]
    async fn nothing_is_left_of_a_connection_that_has_ended() {
        let world = World::start();
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = world.ask("/").await;
            read_until(&mut client, "whole").await;
            clients.push(client);
        }
        assert_eq!(world.connections.n_open(), 5);
        clients.clear();
        let all_gone = async {
            while world.connections.n_open() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, all_gone).await.unwrap();
        world.stop().await;
    }
}
