//! The vectors of the senders, and what differs from them.

use base64::Engine as _;

use super::*;

/// A secret of Standard Webhooks, of these bytes.
fn standard_secret(bytes: [u8; 32]) -> Secret {
    Secret::from(format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}

/// A message that its sender, or another program, has signed; the sender's documentation has the first two.
struct Vector {
    scheme: WebhookScheme,
    secret: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    /// When it was signed; 0 where the scheme has no time stamp.
    at: i64,
}

const SLACK_BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
                          &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
                          &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554\
                          %2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";

const STRIPE_BODY: &str = r#"{"id": "evt_test_webhook", "object": "event"}"#;

const VECTORS: [Vector; 6] = [
    // docs.github.com, "Validating webhook deliveries".
    Vector {
        scheme: WebhookScheme::GitHub,
        secret: "It's a Secret to Everybody",
        headers: &[(
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )],
        body: "Hello, World!",
        at: 0,
    },
    // docs.slack.dev, "Verifying requests from Slack".
    Vector {
        scheme: WebhookScheme::Slack,
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        headers: &[
            ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
            ("x-slack-request-timestamp", "1531420618"),
        ],
        body: SLACK_BODY,
        at: 1_531_420_618,
    },
    // Computed with `openssl dgst -sha256 -hmac` as docs.stripe.com describes it. The first `v1` is of an older secret.
    Vector {
        scheme: WebhookScheme::Stripe,
        secret: "whsec_test_secret",
        headers: &[(
            "stripe-signature",
            "t=1492774577,v1=63249cee31b67a720e89a35301bda22ed9aaba03b70afdf97284fa510e9c8175,\
             v1=c137b1b62277d523cf8fed4dfbd0170a9a5b8a380e00cc3711d4bf0652f2ce7a,v0=00",
        )],
        body: STRIPE_BODY,
        at: 1_492_774_577,
    },
    // The vector of the reference libraries of Standard Webhooks.
    Vector {
        scheme: WebhookScheme::Standard,
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
        body: r#"{"test": 2432232314}"#,
        at: 1_614_265_330,
    },
    Vector {
        scheme: WebhookScheme::GitLab,
        secret: "a token of GitLab",
        headers: &[("x-gitlab-token", "a token of GitLab")],
        body: "{}",
        at: 0,
    },
    Vector {
        scheme: WebhookScheme::Token,
        secret: "a token of somebody",
        headers: &[("x-their-token", "a token of somebody")],
        body: "{}",
        at: 0,
    },
];

const TOLERANCE: Duration = Duration::from_secs(300);

type Headers = Vec<(String, String)>;

fn owned(headers: &[(&str, &str)]) -> Headers {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn verify(
    scheme: WebhookScheme,
    secrets: &[&str],
    headers: &Headers,
    body: &str,
    now: i64,
) -> Result<(), UntrustedWebhook> {
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let received = ReceivedWebhook { headers: &headers, body: body.as_bytes() };
    let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
    received.verify(scheme, "x-their-token", &secrets, now, TOLERANCE)
}

#[test]
fn the_vectors_of_the_senders_are_verified_and_every_change_is_noticed() {
    for Vector { scheme, secret, headers, body, at } in VECTORS {
        let headers = owned(headers);
        assert_eq!(verify(scheme, &[secret], &headers, body, at), Ok(()), "{scheme}");
        let refused = Err(UntrustedWebhook::BadSignature);
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(verify(scheme, &[other], &headers, body, at), refused, "{scheme}");
        assert_eq!(verify(scheme, &[], &headers, body, at), refused, "{scheme}");
        assert_eq!(verify(scheme, &[secret], &Vec::new(), body, at), refused, "{scheme}");
        assert_eq!(
            verify(scheme, &[other, secret], &headers, body, at),
            Ok(()),
            "{scheme}: while it is replaced"
        );
        if !matches!(scheme, WebhookScheme::GitLab | WebhookScheme::Token) {
            assert_eq!(verify(scheme, &[secret], &headers, &format!("{body} "), at), refused, "{scheme}");
        }
        for place in 0..headers.len() {
            let mut changed = headers.clone();
            let value = &mut changed[place].1;
            let digit = value.rfind(|char: char| char.is_ascii_alphanumeric()).unwrap();
            let middle =
                if scheme == WebhookScheme::Stripe { 30 + value.find("c137b").unwrap() } else { digit };
            let other = if value[middle..].starts_with('1') { "2" } else { "1" };
            value.replace_range(middle..=middle, other);
            assert_eq!(verify(scheme, &[secret], &changed, body, at), refused, "{scheme} {changed:?}");
        }
    }
}

#[test]
fn a_signed_time_is_accepted_for_five_minutes() {
    let timed = VECTORS.into_iter().filter(|vector| vector.at > 0);
    let mut n_timed = 0;
    for Vector { scheme, secret, headers, body, at } in timed {
        let at_time = |now| verify(scheme, &[secret], &owned(headers), body, now);
        assert_eq!((at_time(at + 300), at_time(at - 300)), (Ok(()), Ok(())), "{scheme}");
        let too_old = Err(UntrustedWebhook::TooOld);
        assert_eq!((at_time(at + 301), at_time(at - 301)), (too_old, too_old), "{scheme}");
        // Who does not know the secret does not learn what is wrong with the time.
        let other = verify(scheme, &["whsec_other"], &owned(headers), body, at + 301);
        assert_eq!(other, Err(UntrustedWebhook::BadSignature), "{scheme}");
        n_timed += 1;
    }
    assert_eq!(n_timed, 3);
}

#[test]
fn without_a_scheme_every_message_is_accepted() {
    assert_eq!(verify(WebhookScheme::None, &[], &Vec::new(), "", 0), Ok(()));
}

#[test]
fn headers_are_found_by_name_and_repeated_ones_are_no_proof() {
    let two = [("X-Gitlab-Token", b"a token of GitLab".as_slice()), ("x-gitlab-token", b"x")];
    let headers: ReceivedHeaders = two.into_iter().collect();
    assert_eq!(headers.get("x-gitlab-token"), Some("a token of GitLab, x"));
    let received = ReceivedWebhook { headers: &headers, body: b"" };
    let secrets = [Secret::from("a token of GitLab")];
    let verified = received.verify(WebhookScheme::GitLab, "", &secrets, 0, TOLERANCE);
    assert_eq!(verified, Err(UntrustedWebhook::BadSignature));
}

#[test]
fn a_secret_is_checked_when_it_is_given() {
    let check = |scheme: WebhookScheme, text: &str| scheme.check_secret(&Secret::from(text));
    assert!(WebhookScheme::Standard.check_secret(&standard_secret([7; 32])).is_ok());
    assert!(check(WebhookScheme::Standard, "hunter2hunter2").unwrap_err().contains("whsec_"));
    assert!(check(WebhookScheme::Stripe, "whsec_test_secret").is_ok());
    for text in ["", "short", " with a blank in front", "two\nlines of text", &"x".repeat(513)] {
        let wrong = check(WebhookScheme::GitHub, text).unwrap_err();
        assert!(wrong.contains("8 to 512 bytes") && (text.is_empty() || !wrong.contains(text)), "{wrong}");
    }
}

#[test]
fn names_survive_a_round_trip() {
    assert!(WebhookScheme::ALL.into_iter().all(|scheme| scheme.as_str().parse() == Ok(scheme)));
    assert!("hmac".parse::<WebhookScheme>().unwrap_err().contains("none, token, gitlab"));
}
