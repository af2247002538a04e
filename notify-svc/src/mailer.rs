//! How a notice leaves: mail by SMTP, SMS by the provider's HTTP API.
//!
//! A notice may be handed over twice (DESIGN §4: the window is one crash between send and commit), always under the same
//! message ID. What is said is [`crate::wording`]'s; when, and whether at all, is [`crate::domain`]'s.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use engine::breaker::{Breaker, Breakers};
use engine::{failpoint, probe};
use events::code::{Channel, NoticeKind};
use events::id::OrderId;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::{self, PoolConfig};
use lettre::{SmtpTransport, Transport};
use reqwest::{StatusCode, Url};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::domain::{Report, message_id};
use crate::state::Letter;
use crate::wording::{Words, words};

/// The sender of all mail. Nobody reads what is sent there.
const FROM: &str = "Orderlog <no-reply@orderlog.example>";
/// One command of an SMTP dialogue of six, so that all of it ends within 30 s.
const SMTP_COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Mails on their way at once: each takes a thread and a connection.
const MAILS_MAX: u32 = 16;
/// What lettre says of an answer that ended with the connection.
const HUNG_UP: &str = "incomplete response";
const SMTP_IDLE_MAX: Duration = Duration::from_secs(30);
/// A thread that looks whether the server is there is back after this, twice over.
const SMTP_PROBE_TIMEOUT: Duration = Duration::from_millis(1_400);
const SMS_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const SMS_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is read so that its connection can be used again, but no further than this.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends notices; cheap to clone.
#[derive(Clone)]
pub struct Mailer {
    smtp: SmtpTransport,
    mails: Arc<Semaphore>,
    sms: reqwest::Client,
    sms_url: Url,
    smtp_breaker: Breaker,
    sms_breaker: Breaker,
    /// Only to see whether the server is there.
    knocking: SmtpTransport,
}

impl fmt::Debug for Mailer {
    /// The URLs may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailer").finish_non_exhaustive()
    }
}

/// One notice on one channel.
#[derive(Clone, Copy)]
pub struct Parcel<'a> {
    /// Of which order.
    pub order_id: OrderId,
    /// Which notice.
    pub kind: NoticeKind,
    /// By which way.
    pub channel: Channel,
    /// What it says.
    pub letter: &'a Letter,
    /// The address on that channel.
    pub to: &'a str,
}

impl fmt::Debug for Parcel<'_> {
    /// Without the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&message_id(self.order_id, self.kind, self.channel))
    }
}

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Sent, or refused for good.
    Final(Report),
    /// The other side was reached and erred.
    Failed {
        /// Stable code, upper case.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// The other side was not reached, or did not answer in time.
    Unreachable(String),
}

#[derive(Serialize)]
struct Sms<'a> {
    message_id: &'a str,
    to: &'a str,
    body: &'a str,
}

impl Mailer {
    /// A mailer for these servers: `smtp://host:port` (`smtps://` and `?tls=required` encrypt) and the SMS provider's
    /// URL. Nothing is connected yet.
    ///
    /// # Errors
    /// When a URL is none of these; it is not shown, as it may hold a password.
    pub fn new(smtp_url: &str, sms_url: &str) -> anyhow::Result<Self> {
        let pool = PoolConfig::new().max_size(MAILS_MAX).idle_timeout(SMTP_IDLE_MAX);
        // The blocking transport, because each of its commands has a time limit. The async one has none beyond the
        // connect, and one that is dropped half-way goes back to its pool with an answer outstanding, which the next
        // mail would take for its own.
        let smtp = SmtpTransport::from_url(smtp_url).context("SMTP_URL")?;
        let smtp = smtp.timeout(Some(SMTP_COMMAND_TIMEOUT)).pool_config(pool).build();
        let sms = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(SMS_CONNECT_TIMEOUT)
            .timeout(SMS_TIMEOUT)
            .build()
            .context("making the client for SMS")?;
        let sms_url: Url = sms_url.parse().context("SMS_URL")?;
        anyhow::ensure!(matches!(sms_url.scheme(), "http" | "https"), "SMS_URL must begin with http:// or https://");
        let mails = Arc::new(Semaphore::new(MAILS_MAX as usize));
        let knocking = SmtpTransport::from_url(smtp_url).context("SMTP_URL")?;
        let knocking = knocking.timeout(Some(SMTP_PROBE_TIMEOUT)).pool_config(PoolConfig::new().max_size(1));
        let smtp_breaker = Breaker::new("smtp", "the mail server", false);
        let sms_breaker = Breaker::new("sms", "the SMS provider", false);
        Ok(Self { smtp, mails, sms, sms_url, smtp_breaker, sms_breaker, knocking: knocking.build() })
    }

    /// Sends nothing by a way whose breaker is open; the two ways have one each, which are of these from now on.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn guarded(mut self, smtp_url: &str, breakers: &Breakers) -> anyhow::Result<Self> {
        let (smtp_place, sms) = (probe::place_of(smtp_url)?, probe::Http::new(self.sms_url.as_str())?);
        // Neither is vital: notices wait, and everything else goes on.
        self.smtp_breaker = breakers.add("smtp", format!("the mail server at {smtp_place}"), false);
        self.sms_breaker = breakers.add("sms", format!("the SMS provider at {}", sms.place()), false);
        let smtp = self.knocking.clone();
        self.smtp_breaker.watch(move || knock(smtp.clone()));
        self.sms_breaker.watch(move || sms.look());
        Ok(self)
    }

    /// Hands one notice over.
    pub async fn send(&self, parcel: Parcel<'_>) -> Verdict {
        let id = message_id(parcel.order_id, parcel.kind, parcel.channel);
        let words = words(parcel.order_id, parcel.kind, parcel.letter);
        let breaker = match parcel.channel {
            Channel::Email => &self.smtp_breaker,
            Channel::Sms => &self.sms_breaker,
        };
        if let Err(away) = breaker.check() {
            return Verdict::Unreachable(away.to_string());
        }
        if let Err(error) = failpoint::reach("N1").await {
            return Verdict::Unreachable(error.to_string());
        }
        let call = async {
            match parcel.channel {
                Channel::Email => self.mail(&id, parcel.to, words).await,
                Channel::Sms => self.text(&id, parcel.to, &words.text).await,
            }
        };
        let verdict = breaker.ask(call).await;
        match &verdict {
            Verdict::Unreachable(message) => breaker.failed(message),
            Verdict::Final(_) | Verdict::Failed { .. } => breaker.succeeded(),
        }
        match failpoint::reach("N2").await {
            Ok(()) => verdict,
            Err(error) => Verdict::Unreachable(error.to_string()),
        }
    }

    async fn mail(&self, id: &str, to: &str, words: Words) -> Verdict {
        let message = match compose(id, to, words) {
            Ok(message) => message,
            // Contacts are parsed when they are put; whatever else is in a row can be sent nowhere.
            Err(_) => return refused("INVALID_ADDRESS"),
        };
        let permit = Arc::clone(&self.mails).acquire_owned().await.expect("the semaphore is never closed");
        let smtp = self.smtp.clone();
        let sending = tokio::task::spawn_blocking(move || {
            let sent = smtp.send(&message);
            drop(permit);
            sent
        });
        match sending.await {
            Ok(Ok(_)) => Verdict::Final(Report::Sent),
            Ok(Err(error)) => smtp_verdict(&error),
            Err(error) => Verdict::Failed { code: "PANIC", message: error.to_string() },
        }
    }

    async fn text(&self, id: &str, to: &str, body: &str) -> Verdict {
        let sms = Sms { message_id: id, to, body };
        match self.sms.post(self.sms_url.clone()).json(&sms).send().await {
            Ok(mut response) => {
                let status = response.status();
                drain(&mut response).await;
                sms_verdict(status)
            }
            // The URL may hold a password.
            Err(error) => Verdict::Unreachable(probe::chain(&error.without_url())),
        }
    }
}

/// Whether the mail server greets; one that greets and refuses is there.
async fn knock(smtp: SmtpTransport) -> Result<(), String> {
    let knocked = tokio::task::spawn_blocking(move || smtp.test_connection()).await;
    match knocked.map_err(|error| error.to_string())? {
        Ok(true) => Ok(()),
        Ok(false) => Err("it does not answer".to_owned()),
        Err(error) => match smtp_verdict(&error) {
            Verdict::Unreachable(message) => Err(message),
            Verdict::Final(_) | Verdict::Failed { .. } => Ok(()),
        },
    }
}

fn refused(code: &str) -> Verdict {
    Verdict::Final(Report::Refused(code.to_owned()))
}

fn compose(id: &str, to: &str, words: Words) -> anyhow::Result<Message> {
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let message = Message::builder()
        .from(FROM.parse().expect("the sender's address is one"))
        .to(Mailbox::new(None, to.parse()?))
        .subject(words.subject)
        .message_id(Some(format!("<{id}>")))
        // RFC 3834: so that nobody's out-of-office notice answers it.
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .header(ContentType::TEXT_PLAIN)
        .body(words.text)?;
    Ok(message)
}

/// RFC 5321 §4.2.1: 4yz may succeed later, 5yz will not. A server that refuses *us* (53x: it wants other credentials)
/// says nothing about the mail.
fn smtp_verdict(error: &smtp::Error) -> Verdict {
    let message = error.to_string();
    match error.status().map(u16::from) {
        Some(530..=539) => Verdict::Failed { code: "SMTP_LOGIN", message },
        Some(code) if error.is_permanent() => refused(&format!("SMTP_{code}")),
        Some(_) => Verdict::Failed { code: "SMTP_TRANSIENT", message },
        // The server hung up in the middle of the dialogue, as one that is stopped does. lettre has no kind for that.
        None if error.source().is_some_and(|source| source.to_string() == HUNG_UP) => Verdict::Unreachable(message),
        None if error.is_response() => Verdict::Failed { code: "SMTP_PROTOCOL", message },
        // What the server cannot do (encrypt, log in as configured).
        None if error.is_client() => Verdict::Failed { code: "SMTP_CLIENT", message },
        None => Verdict::Unreachable(message),
    }
}

/// Only what speaks of this message is final; all else may be mended without it.
fn sms_verdict(status: StatusCode) -> Verdict {
    match status {
        status if status.is_success() => Verdict::Final(Report::Sent),
        StatusCode::BAD_REQUEST
        | StatusCode::CONFLICT
        | StatusCode::GONE
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => refused(&format!("HTTP_{}", status.as_u16())),
        // What lies between kept the request back until the provider had waited long enough.
        StatusCode::REQUEST_TIMEOUT => Verdict::Unreachable("it has not heard the request in time".to_owned()),
        status => Verdict::Failed { code: "SMS_PROVIDER", message: format!("answered {status}") },
    }
}

/// Reads an answer nobody needs. What breaks here changes nothing: the status has come.
async fn drain(response: &mut reqwest::Response) {
    let mut bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes += chunk.len();
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mail_carries_its_id_and_says_that_a_machine_wrote_it() {
        let words = Words { subject: "Grüße".to_owned(), text: "Your order 7\n.\nis here".to_owned() };
        let mail = compose("7.ORDER_CONFIRMED.EMAIL@orderlog", "ann@example.com", words).unwrap().formatted();
        let mail = String::from_utf8(mail).unwrap();
        assert!(mail.contains("Message-ID: <7.ORDER_CONFIRMED.EMAIL@orderlog>\r\n"), "{mail}");
        assert!(mail.contains("Auto-Submitted: auto-generated\r\n") && mail.contains("To: ann@example.com\r\n"));
        assert!(mail.is_ascii(), "not every server takes more: {mail}");
    }

    #[test]
    fn what_is_no_address_is_no_mail() {
        let words = Words { subject: String::new(), text: String::new() };
        for bad in ["", "ann", "ann@x\r\nBcc: bob@example.com"] {
            assert!(compose("7", bad, words.clone()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_address_that_a_contact_may_have_can_be_written_to(text in "[!-~]{1,10}@[a-zA-Z0-9.-]{1,8}\\.[a-z]{2,3}") {
            if let Ok(address) = crate::contact::email(&text) {
                let words = Words { subject: String::new(), text: String::new() };
                prop_assert!(compose("7", &address, words).is_ok(), "{}", address);
            }
        }
    }

    #[test]
    fn only_what_speaks_of_the_message_is_final() {
        for status in [200_u16, 202, 204] {
            assert_eq!(sms_verdict(StatusCode::from_u16(status).unwrap()), Verdict::Final(Report::Sent));
        }
        for status in [400_u16, 413, 422] {
            let verdict = sms_verdict(StatusCode::from_u16(status).unwrap());
            assert_eq!(verdict, refused(&format!("HTTP_{status}")));
        }
        assert!(matches!(sms_verdict(StatusCode::REQUEST_TIMEOUT), Verdict::Unreachable(_)));
        for status in [302_u16, 401, 403, 404, 405, 429, 500, 503] {
            let verdict = sms_verdict(StatusCode::from_u16(status).unwrap());
            assert!(matches!(verdict, Verdict::Failed { .. }), "{status}");
        }
    }

    #[test]
    fn a_wrong_url_is_named_but_not_shown() {
        for (smtp, sms, name) in [
            ("http://secret", "http://x.test/sms", "SMTP_URL"),
            ("smtp://x.test", "secret", "SMS_URL"),
            ("smtp://x.test", "ftp://secret", "SMS_URL"),
        ] {
            let error = format!("{:#}", Mailer::new(smtp, sms).unwrap_err());
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }
}
