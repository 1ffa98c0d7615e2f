//! A minimal database session: enough to see that the server answers and to create a database.
//!
//! It implements the simple query protocol (PostgreSQL documentation, "Message Flow") over the Unix socket, so neither
//! a client library nor psql is needed. It counts rows and does not decode them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ClusterError;
use crate::initdb::SUPERUSER;

/// Protocol version 3.0.
const PROTOCOL: i32 = 196_608;

/// No expected message is nearly this long; a longer one means that the protocol is out of step.
const LONGEST_MESSAGE_BYTES: usize = 1024 * 1024;

/// An open session. Dropping it closes it.
pub(crate) struct Session {
    stream: UnixStream,
    socket: PathBuf,
}

impl Session {
    /// Connects and waits until the server is ready for a query. Each answer may take at most `limit`.
    pub(crate) fn open(socket: &Path, database: &str, limit: Duration) -> Result<Session, ClusterError> {
        let stream = UnixStream::connect(socket).map_err(ClusterError::io("connect to", socket))?;
        let mut session = Session { stream, socket: socket.to_path_buf() };
        session.stream.set_read_timeout(Some(limit)).map_err(ClusterError::io("configure", socket))?;
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for word in ["user", SUPERUSER, "database", database] {
            body.extend(word.as_bytes());
            body.push(0);
        }
        body.push(0);
        session.send(None, &body)?;
        session.until_ready()?;
        Ok(session)
    }

    /// Executes a statement and returns its number of rows.
    pub(crate) fn run(&mut self, statement: &str) -> Result<usize, ClusterError> {
        let body = [statement.as_bytes(), &[0]].concat();
        self.send(Some(b'Q'), &body)?;
        self.until_ready()
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Result<(), ClusterError> {
        let length = i32::try_from(body.len() + 4).unwrap_or(i32::MAX);
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend(length.to_be_bytes());
        message.extend(body);
        self.stream.write_all(&message).map_err(ClusterError::io("write to", &self.socket))
    }

    fn until_ready(&mut self) -> Result<usize, ClusterError> {
        let mut n_rows = 0;
        let mut refused = None;
        loop {
            let read = self.receive();
            // After a FATAL error the server closes the connection instead of becoming ready.
            let (kind, body) = match (read, refused) {
                (Ok(message), still) => {
                    refused = still;
                    message
                }
                (Err(_), Some(refused)) => return Err(refused),
                (Err(error), None) => return Err(ClusterError::io("read from", &self.socket)(error)),
            };
            match kind {
                b'D' => n_rows += 1,
                b'E' => refused = Some(refusal(&body)),
                b'Z' => return refused.map_or(Ok(n_rows), Err),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0).saturating_sub(4);
        if length > LONGEST_MESSAGE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of impossible length"));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

fn refusal(body: &[u8]) -> ClusterError {
    let field = |wanted: u8| {
        let mut fields = body.split(|byte| *byte == 0).filter(|field| field.first() == Some(&wanted));
        fields.next().map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
    };
    ClusterError::Refused { severity: field(b'S'), code: field(b'C'), message: field(b'M') }
}
