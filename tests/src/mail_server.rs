//! A mail server of the test: aiosmtpd from PyPI, which writes down what it gets.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, python, wait_until, workspace_root};

/// The server, and what makes certificates for it.
const PACKAGES: [&str; 2] = ["aiosmtpd==1.4.6", "trustme==1.2.1"];

const LIMIT: Duration = Duration::from_secs(30);

/// A running mail server, killed when this is dropped. `tests/data/mail_server.py` says how its recipients behave.
#[derive(Debug)]
pub struct MailServer {
    _process: Process,
    directory: TempDir,
    tls: &'static str,
    login: Option<(&'static str, &'static str)>,
    port: u16,
}

impl MailServer {
    /// Starts a server with `none`, `starttls` or `implicit` TLS, which wants this user and password, if any.
    ///
    /// # Errors
    /// If its packages cannot be installed, or it is not ready in time.
    pub async fn start(tls: &'static str, login: Option<(&'static str, &'static str)>) -> Result<MailServer> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(python(&PACKAGES)?);
        command.arg(workspace_root()?.join("tests/data/mail_server.py")).arg(directory.path()).arg(tls);
        if let Some((user, password)) = login {
            command.arg(user).arg(password);
        }
        let mut process = Process::start(&mut command)?;
        let file = directory.path().join("port");
        let port = wait_until(LIMIT, "the mail server listens", async || match fs::read_to_string(&file) {
            Ok(port) => Ok(port),
            Err(_) if process.is_running() => Err("it has not yet".to_owned()),
            Err(_) => Err(process.stderr()),
        });
        let port = port.await?.parse()?;
        Ok(MailServer { _process: process, directory, tls, login, port })
    }

    /// Leads a server to it, with everything that it wants.
    pub fn configure(&self, command: &mut Command) {
        command
            .env("GATHERING_SMTP_HOST", "127.0.0.1")
            .env("GATHERING_SMTP_PORT", self.port.to_string())
            .env("GATHERING_SMTP_TLS", self.tls)
            .env("GATHERING_SMTP_FROM", "GatheRing <gathering@example.org>");
        if self.tls != "none" {
            command.env("GATHERING_SMTP_CA_FILE", self.ca_file());
        }
        if let Some((user, password)) = self.login {
            command.env("GATHERING_SMTP_USER", user).env("GATHERING_SMTP_PASSWORD", password);
        }
    }

    /// The certificate of its authority.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// What has happened: `rcpt`, `begun`, `data` and `stored`.
    ///
    /// # Errors
    /// If its record cannot be read.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = match fs::read_to_string(self.directory.path().join("events")) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("cannot read the record of the mail server"),
        };
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| text.split_at(end).0);
        whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// The messages that it has taken.
    ///
    /// # Errors
    /// As [`MailServer::events`].
    pub fn messages(&self) -> Result<Vec<Value>> {
        Ok(self.events()?.into_iter().filter(|event| event["event"] == "stored").collect())
    }
}
