//! E-mail, against a mail server that does what a test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gathering_tools::{Attachment, Mail, MailError, Mailer, SmtpLogin, SmtpSettings, SmtpTls};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a test waits for an answer that does not come.
const TIRED: Duration = Duration::from_secs(1);

/// What the mail server does about one line.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer(&'static str),
    HangUp,
    Nothing,
}

/// A mail server for one connection after the other. The whole message counts as one line that begins with `.`.
struct Server {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `act` says what is done about a line, if not the usual.
    async fn start(act: impl Fn(&str) -> Option<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&lines);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut line = "GREETING".to_owned();
                loop {
                    kept.lock().unwrap().push(line.clone());
                    let answer = match act(&line).unwrap_or_else(|| usual(&line)) {
                        Act::Answer(answer) => answer,
                        Act::HangUp => break,
                        Act::Nothing => std::future::pending().await,
                    };
                    if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                    let is_data = answer.starts_with("354");
                    line.clear();
                    if is_data {
                        line.push_str(".\r\n");
                    }
                    while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
                        if !is_data || line.ends_with("\r\n.\r\n") {
                            break;
                        }
                    }
                    if line.is_empty() {
                        break;
                    }
                }
            }
        });
        Self { port, lines, task }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn settings(&self) -> SmtpSettings {
        SmtpSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            tls: SmtpTls::None,
            login: None,
            from: "GatheRing <gathering@example.org>".parse().unwrap(),
            timeout: Duration::from_secs(20),
            extra_ca_pem: Vec::new(),
        }
    }

    /// As `send`, and soon tired of waiting.
    async fn send_or_tire(&self, mail: &Mail) -> Result<gathering_tools::SentMail, MailError> {
        let settings = SmtpSettings { timeout: TIRED, ..self.settings() };
        Mailer::new(settings).unwrap().send(mail).await
    }

    async fn send(&self, mail: &Mail) -> Result<gathering_tools::SentMail, MailError> {
        Mailer::new(self.settings()).unwrap().send(mail).await
    }

    /// The message as it arrived, without the dots of SMTP.
    fn message(&self) -> String {
        let lines = self.lines();
        let message = lines.iter().find(|line| line.starts_with(".\r\n")).unwrap();
        message.trim_start_matches(".\r\n").trim_end_matches(".\r\n").replace("\r\n..", "\r\n.")
    }
}

fn usual(line: &str) -> Act {
    Act::Answer(match line.split([' ', ':', '\r']).next().unwrap_or_default() {
        "GREETING" => "220 mail.example.org ready\r\n",
        "EHLO" => "250-mail.example.org\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN\r\n",
        "DATA" => "354 go on\r\n",
        "QUIT" => "221 bye\r\n",
        "." => "250 2.0.0 queued as 4711\r\n",
        _ => "250 ok\r\n",
    })
}

fn mail() -> Mail {
    Mail {
        to: vec!["Ada <ada@example.org>".parse().unwrap(), "bob@example.org".parse().unwrap()],
        cc: vec!["cy@example.org".parse().unwrap(), "ADA@example.org".parse().unwrap()],
        bcc: vec!["dan@example.org".parse().unwrap(), "bob@example.org".parse().unwrap()],
        reply_to: Some("help@example.org".parse().unwrap()),
        subject: "Größe: 5 €".to_owned(),
        text: "First\n.\n.. third\r\nvierte: ä".to_owned(),
        html: None,
        attachments: Vec::new(),
        key: Some("0197b8a4-9ab1-7000-8000-000000000000/tell".to_owned()),
    }
}

#[tokio::test]
async fn a_message_goes_to_each_recipient_once() {
    let server = Server::start(|_| None).await;
    let sent = server.send(&mail()).await.unwrap();
    assert_eq!(sent.message_id, "<0197b8a4-9ab1-7000-8000-000000000000.tell@example.org>");
    let all = ["ada@example.org", "bob@example.org", "cy@example.org", "ADA@example.org", "dan@example.org"];
    assert_eq!(sent.recipients, all);
    assert_eq!(sent.response, "250 2.0.0 queued as 4711");
    let lines = server.lines();
    let commands: Vec<&str> = lines.iter().filter_map(|line| line.lines().next()).collect();
    assert!(commands[1].starts_with("EHLO "), "{commands:?}");
    let rcpt: Vec<String> = all.iter().map(|address| format!("RCPT TO:<{address}>")).collect();
    assert_eq!(commands[2], "MAIL FROM:<gathering@example.org>");
    assert_eq!(commands[3..8], rcpt);
    assert_eq!(commands[8..], ["DATA", ".", "QUIT"]);
    let message = server.message();
    for header in [
        "From: GatheRing <gathering@example.org>\r\n",
        "To: Ada <ada@example.org>, bob@example.org\r\n",
        "Cc: cy@example.org, ADA@example.org\r\n",
        "Reply-To: help@example.org\r\n",
        "Message-ID: <0197b8a4-9ab1-7000-8000-000000000000.tell@example.org>\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "Subject: =?utf-8?b?",
        "MIME-Version: 1.0\r\n",
        "Date: ",
        "\r\n\r\nFirst\r\n.\r\n.. third\r\nvierte: =C3=A4",
    ] {
        assert!(message.contains(header), "{header} in {message}");
    }
    assert!(!message.contains("dan@") && message.is_ascii(), "{message}");
}

#[tokio::test]
async fn a_message_may_have_html_and_files() {
    let server = Server::start(|_| None).await;
    let attach = |name: &str, bytes: &[u8]| Attachment { name: name.to_owned(), bytes: bytes.to_vec() };
    let attachments = vec![
        attach("größe.csv", b"a;b\n"),
        attach("a \"b\".eml", b"Subject: x\n\nx"),
        attach("x", &[0, 255]),
    ];
    let mail = Mail { html: Some("<p>ä</p>".to_owned()), attachments, key: None, ..mail() };
    let sent = server.send(&mail).await.unwrap();
    let message = server.message();
    for part in [
        "Content-Type: multipart/mixed;",
        "Content-Type: multipart/alternative;",
        "Content-Type: text/plain; charset=utf-8\r\n",
        "Content-Type: text/html; charset=utf-8\r\n",
        "Content-Type: text/csv\r\n",
        "filename*0*=utf-8''gr%C3%B6%C3%9Fe.csv",
        "Content-Type: application/octet-stream\r\n",
        "YTtiCg==",
        "AP8=",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!message.contains("message/rfc822") && message.is_ascii(), "{message}");
    let again = server.send(&mail).await.unwrap();
    assert_ne!(sent.message_id, again.message_id, "without a key no two messages are the same");
}

#[tokio::test]
async fn a_refusal_says_whether_it_passes_and_nothing_was_delivered() {
    for place in ["GREETING", "EHLO", "MAIL", "DATA", "."] {
        for (answer, is_retryable) in [("451 4.7.1 later\r\n", true), ("554 5.7.1 never\r\n", false)] {
            let server =
                Server::start(move |line| line.starts_with(place).then_some(Act::Answer(answer))).await;
            let error = server.send(&mail()).await.unwrap_err();
            assert!(!error.may_have_been_delivered(), "{place}: {error}");
            assert_eq!(
                (error.kind().as_str(), error.is_retryable()),
                ("smtp", is_retryable),
                "{place}: {error}"
            );
            assert!(error.to_string().contains(answer.trim_end()), "{place}: {error}");
        }
    }
}

#[tokio::test]
async fn a_refused_recipient_is_named_and_nobody_gets_the_message() {
    let server = Server::start(|line| match line {
        line if line.starts_with("RCPT TO:<bob@") => Some(Act::Answer("550 5.1.1 no such user\r\n")),
        line if line.starts_with("RCPT TO:<cy@") => Some(Act::Answer("452 4.2.2 mailbox full\r\n")),
        _ => None,
    })
    .await;
    let error = server.send(&mail()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`bob@example.org` (550 5.1.1 no such user)"), "{text}");
    assert!(text.contains("`cy@example.org` (452 4.2.2 mailbox full)") && !text.contains("ada"), "{text}");
    assert!(!error.is_retryable() && !error.may_have_been_delivered());
    assert!(!server.lines().iter().any(|line| line.starts_with("DATA")), "{:?}", server.lines());

    let full = |line: &str| line.starts_with("RCPT").then_some(Act::Answer("452 4.2.2 mailbox full\r\n"));
    let error = Server::start(full).await.send(&mail()).await.unwrap_err();
    assert!(error.is_retryable() && !error.may_have_been_delivered(), "{error}");
}

#[tokio::test]
async fn a_lost_answer_to_the_message_leaves_its_delivery_unknown_and_no_other_does() {
    let mut checks = tokio::task::JoinSet::new();
    for act in [Act::HangUp, Act::Nothing] {
        for place in ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "."] {
            checks.spawn(async move {
                let server = Server::start(move |line| line.starts_with(place).then_some(act)).await;
                let error = server.send_or_tire(&mail()).await.unwrap_err();
                let is_unknown = place == ".";
                assert_eq!(error.may_have_been_delivered(), is_unknown, "{place} {act:?}: {error}");
                assert_eq!(error.is_retryable(), !is_unknown, "{place} {act:?}: {error}");
                let id = "<0197b8a4-9ab1-7000-8000-000000000000.tell@example.org>";
                assert_eq!(error.to_string().contains(id), is_unknown, "{error}");
            });
        }
    }
    checks.join_all().await;
}

#[tokio::test]
async fn an_answer_that_is_none_leaves_the_delivery_unknown() {
    for answer in ["what?\r\n", "354 more\r\n", "250-half\r\n"] {
        let server = Server::start(move |line| line.starts_with('.').then_some(Act::Answer(answer))).await;
        let error = server.send_or_tire(&mail()).await.unwrap_err();
        assert!(error.may_have_been_delivered(), "{answer}: {error}");
    }
}

#[tokio::test]
async fn a_missing_good_bye_changes_nothing() {
    let server = Server::start(|line| line.starts_with("QUIT").then_some(Act::Nothing)).await;
    server.send(&mail()).await.unwrap();
}

#[tokio::test]
async fn few_messages_are_sent_at_once() {
    let mailer = Mailer::new(Server::start(|_| None).await.settings()).unwrap();
    let another = mailer.clone();
    let mut turns = Vec::new();
    while let Ok(turn) = timeout(Duration::ZERO, mailer.turn()).await {
        turns.push(turn);
    }
    assert_eq!(turns.len(), 8);
    assert!(timeout(Duration::ZERO, another.turn()).await.is_err(), "a clone waits for the same turns");
    turns.pop();
    assert!(timeout(Duration::ZERO, another.turn()).await.is_ok());
}

#[tokio::test]
async fn no_server_at_all_may_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(|_| None).await;
    let settings = SmtpSettings { port: listener.local_addr().unwrap().port(), ..server.settings() };
    drop(listener);
    let error = Mailer::new(settings).unwrap().send(&mail()).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.is_retryable()), ("connection", true), "{error}");
}

#[tokio::test]
async fn without_tls_nothing_is_said_to_a_server_that_must_have_it() {
    let refused = |line: &str| line.starts_with("STARTTLS").then_some(Act::Answer("502 what?\r\n"));
    let injected = |line: &str| {
        line.starts_with("STARTTLS")
            .then_some(Act::Answer("220 go\r\n250-mail.example.org\r\n250 AUTH PLAIN\r\n"))
    };
    let not_encrypted = |line: &str| line.starts_with("STARTTLS").then_some(Act::Answer("220 go\r\n"));
    let servers = [
        Server::start(refused).await,
        Server::start(injected).await,
        Server::start(not_encrypted).await,
        Server::start(|line| (line == "GREETING").then_some(Act::Nothing)).await,
    ];
    for (tls, server) in
        [SmtpTls::StartTls, SmtpTls::StartTls, SmtpTls::StartTls, SmtpTls::Implicit].into_iter().zip(servers)
    {
        let password = "not-for-everybody".into();
        let login = Some(SmtpLogin { user: "ada".to_owned(), password });
        let settings = SmtpSettings { tls, login, timeout: TIRED, ..server.settings() };
        let Ok(mailer) = Mailer::new(settings) else {
            eprintln!("skipped: this system has no certificate authorities");
            return;
        };
        let error = mailer.send(&mail()).await.unwrap_err();
        assert!(!error.may_have_been_delivered(), "{error}");
        let lines = server.lines();
        let is_harmless =
            |line: &String| ["GREETING", "EHLO", "STARTTLS"].iter().any(|word| line.starts_with(word));
        let after_tls = |line: &String| {
            line.as_bytes().first().is_some_and(|byte| *byte == 0x16) || line.contains('\u{fffd}')
        };
        assert!(lines.iter().all(|line| is_harmless(line) || after_tls(line)), "{lines:?}");
    }
}

#[tokio::test]
async fn what_a_server_sends_before_tls_does_not_count_afterwards() {
    let injected = |line: &str| line.starts_with("STARTTLS").then_some(Act::Answer("220 go\r\n250 ok\r\n"));
    let server = Server::start(injected).await;
    let settings = SmtpSettings { tls: SmtpTls::StartTls, ..server.settings() };
    let Ok(mailer) = Mailer::new(settings) else { return };
    let error = mailer.send(&mail()).await.unwrap_err();
    assert!(matches!(&error, MailError::Tls { reason, .. } if reason.contains("before TLS")), "{error}");
    assert!(!error.is_retryable());

    let busy = |line: &str| line.starts_with("STARTTLS").then_some(Act::Answer("454 4.7.0 not now\r\n"));
    let server = Server::start(busy).await;
    let settings = SmtpSettings { tls: SmtpTls::StartTls, ..server.settings() };
    let error = Mailer::new(settings).unwrap().send(&mail()).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("454 4.7.0 not now"), "{error}");
}

#[tokio::test]
async fn a_refused_login_shows_no_secret() {
    let password = "not-for-everybody";
    let login = || Some(SmtpLogin { user: "ada".to_owned(), password: password.into() });
    let refusal = "535 no: AGFkYQBub3QtZm9yLWV2ZXJ5Ym9keQ==\r\n";
    let server = Server::start(move |line| line.starts_with("AUTH").then_some(Act::Answer(refusal))).await;
    let settings = SmtpSettings { login: login(), ..server.settings() };
    assert!(!format!("{settings:?}").contains(password));
    let mailer = Mailer::new(settings).unwrap();
    assert!(!format!("{mailer:?}").contains(password));
    let error = mailer.send(&mail()).await.unwrap_err();
    assert!(error.to_string().contains("refused the login: 535") && !error.is_retryable(), "{error}");
    assert!(!format!("{error} {error:?}").contains("AGFkYQ"), "{error:?}");

    let no_login = |line: &str| line.starts_with("EHLO").then_some(Act::Answer("250 mail.example.org\r\n"));
    let server = Server::start(no_login).await;
    let mailer = Mailer::new(SmtpSettings { login: login(), ..server.settings() }).unwrap();
    let error = mailer.send(&mail()).await.unwrap_err();
    assert!(matches!(error, MailError::NoLogin { .. }), "{error}");
    assert!(!server.lines().iter().any(|line| line.starts_with("MAIL")));
}

#[tokio::test]
async fn an_address_in_other_letters_needs_a_server_that_knows_them() {
    let unicode = Mail { to: vec!["jürgen@bücher.example".parse().unwrap()], ..mail() };
    let server = Server::start(|_| None).await;
    let error = server.send(&unicode).await.unwrap_err();
    assert!(
        matches!(&error, MailError::NoUnicode { address, .. } if address.starts_with("jürgen@xn--")),
        "{error}"
    );
    let domain_only = Mail { to: vec!["info@bücher.example".parse().unwrap()], ..mail() };
    let sent = server.send(&domain_only).await.unwrap();
    assert_eq!(sent.recipients[0], "info@xn--bcher-kva.example");
    let knows = |line: &str| {
        line.starts_with("EHLO")
            .then_some(Act::Answer("250-mail.example.org\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"))
    };
    let server = Server::start(knows).await;
    server.send(&unicode).await.unwrap();
    let lines = server.lines();
    assert!(lines.iter().any(|line| line.contains("SMTPUTF8 BODY=8BITMIME")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("RCPT TO:<jürgen@xn--bcher-kva.example>")), "{lines:?}");
}

#[test]
fn a_file_without_certificates_is_refused() {
    let settings = SmtpSettings {
        host: "mail.example.org".to_owned(),
        port: 465,
        tls: SmtpTls::Implicit,
        login: None,
        from: "a@example.org".parse().unwrap(),
        timeout: Duration::from_secs(1),
        extra_ca_pem: b"no certificate".to_vec(),
    };
    assert!(matches!(Mailer::new(settings), Err(MailError::Certificates(_))));
}
