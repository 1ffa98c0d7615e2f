//! The connection to the mail server, encrypted where the operator wants it so.
//!
//! The change to TLS is made here and not by the SMTP client: what the other side sends before TLS begins must not count
//! as an answer afterwards, since anybody on the way could have sent it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::{broken, shown};
use super::{MailError, SmtpSettings, SmtpTls};

/// The longest answer before TLS begins, in bytes.
const MAX_REPLY_BYTES: usize = 16 * 1024;
/// What the SMTP client reads first after `STARTTLS`, because the server greets only once.
const GREETED_BEFORE: &[u8] = b"220 greeted before\r\n";

/// Trusts the authorities of the system, and those in `extra_pem`.
pub(super) fn tls_connector(extra_pem: &[u8]) -> Result<TlsConnector, MailError> {
    let extra: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(extra_pem)
        .collect::<Result<_, _>>()
        .map_err(MailError::Certificates)?;
    if extra.is_empty() && !extra_pem.is_empty() {
        return Err(MailError::Certificates(rustls::pki_types::pem::Error::NoItemsFound));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(MailError::Setup)?;
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(MailError::Setup)?.dangerous();
    let config = config.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Waits no longer than the settings allow for one answer.
pub(super) async fn within<T>(
    settings: &SmtpSettings,
    more: Duration,
    answer: impl Future<Output = T>,
) -> Result<T, MailError> {
    let after = settings.timeout + more;
    let answered = tokio::time::timeout(after, answer).await;
    answered.map_err(|_| MailError::TimedOut { host: settings.host.clone(), after })
}

/// A connection on which the server has been greeted.
pub(super) async fn connect(
    settings: &SmtpSettings,
    tls: Option<&TlsConnector>,
    hello: &ClientId,
) -> Result<AsyncSmtpConnection, MailError> {
    let place = (settings.host.as_str(), settings.port);
    let mut tcp =
        within(settings, Duration::ZERO, TcpStream::connect(place)).await?.map_err(cannot(settings))?;
    tcp.set_nodelay(true).map_err(cannot(settings))?;
    let stream: Box<dyn AsyncTokioStream> = match (settings.tls, tls) {
        (SmtpTls::StartTls, Some(tls)) => {
            within(settings, Duration::ZERO, start_tls(settings, &mut tcp, hello)).await??;
            Box::new(encrypted(settings, tls, tcp, GREETED_BEFORE).await?)
        }
        (SmtpTls::Implicit, Some(tls)) => Box::new(encrypted(settings, tls, tcp, b"").await?),
        _ => Box::new(tcp),
    };
    let greeted = AsyncSmtpConnection::connect_with_transport(stream, hello);
    within(settings, Duration::ZERO, greeted)
        .await?
        .map_err(|error| broken(settings, "the connection", error))
}

fn cannot(settings: &SmtpSettings) -> impl Fn(io::Error) -> MailError {
    |source| MailError::Connect { host: settings.host.clone(), source }
}

fn no_tls(settings: &SmtpSettings, reason: impl Into<String>) -> MailError {
    MailError::Tls { host: settings.host.clone(), reason: reason.into() }
}

/// Asks the server to begin TLS.
async fn start_tls(settings: &SmtpSettings, tcp: &mut TcpStream, hello: &ClientId) -> Result<(), MailError> {
    for command in ["", &format!("EHLO {hello}\r\n"), "STARTTLS\r\n"] {
        tcp.write_all(command.as_bytes()).await.map_err(cannot(settings))?;
        let reply = read_reply(tcp).await.map_err(cannot(settings))?;
        let (code, text, is_whole) = reply;
        if !is_whole {
            return Err(no_tls(settings, "it sent more than its answer before TLS began"));
        }
        match code {
            200..=299 => {}
            400..=499 => {
                let host = settings.host.clone();
                let text = shown(&text);
                return Err(MailError::Refused { host, what: "to begin TLS", code, text });
            }
            _ => return Err(no_tls(settings, format!("it refused STARTTLS: {code} {}", shown(&text)))),
        }
    }
    Ok(())
}

/// The code and the text of an answer, and whether nothing came after it.
async fn read_reply(tcp: &mut TcpStream) -> io::Result<(u16, String, bool)> {
    let mut bytes = Vec::new();
    loop {
        if tcp.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.len() > MAX_REPLY_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        if let Some((last, rest)) = last_line(&bytes) {
            let code = last.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no answer of SMTP"))?;
            return Ok((code, last.get(4..).unwrap_or_default().to_owned(), rest == 0));
        }
    }
}

/// The last line of an answer, if it is there, and how many bytes follow it. `-` after the code says that more lines
/// follow.
fn last_line(bytes: &[u8]) -> Option<(String, usize)> {
    let mut at = 0;
    while let Some(length) = bytes.get(at..)?.windows(2).position(|pair| pair == b"\r\n") {
        let line = bytes.get(at..at + length)?;
        at += length + 2;
        if line.get(3) != Some(&b'-') {
            return Some((String::from_utf8_lossy(line).into_owned(), bytes.len() - at));
        }
    }
    None
}

async fn encrypted(
    settings: &SmtpSettings,
    tls: &TlsConnector,
    tcp: TcpStream,
    greeting: &'static [u8],
) -> Result<Greeted, MailError> {
    let name = ServerName::try_from(settings.host.clone());
    let name = name.map_err(|_| no_tls(settings, "its name is no name of a host"))?;
    let peer = tcp.peer_addr().map_err(cannot(settings))?;
    let shaken = within(settings, Duration::ZERO, tls.connect(name, tcp)).await?;
    let stream = shaken.map_err(|source| {
        let cause = source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            Some(cause) => no_tls(settings, cause.to_string()),
            None => cannot(settings)(source),
        }
    })?;
    Ok(Greeted { greeting, stream, peer })
}

/// An encrypted stream, before which a greeting is read.
#[derive(Debug)]
struct Greeted {
    greeting: &'static [u8],
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    peer: SocketAddr,
}

impl AsyncTokioStream for Greeted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.greeting.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let (now, later) = self.greeting.split_at(self.greeting.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.greeting = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
