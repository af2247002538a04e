//! The SMTP side of the sink (RFC 5321): what a mail client needs, on a trusted network. No TLS, no authentication, no
//! relaying; commands are parsed by `smtp-proto`, what follows DATA is `mail`'s.

use std::io;
use std::slice::Iter;
use std::sync::Arc;
use std::time::Duration;

use smtp_proto::request::receiver::RequestReceiver;
use smtp_proto::{Error as Syntax, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::mail::{Incoming, MAIL_BYTES_MAX, messages};
use crate::mailbox::{Channel, Mailbox};
use crate::plan::SinkMode;
use crate::sink_http::SLOW_DELAY;

const CONNECTIONS_MAX: usize = 256;
const RECIPIENTS_MAX: usize = 100;
/// A client that errs more often is sent away.
const ERRORS_MAX: u32 = 10;
const IDLE_SECONDS_MAX: u64 = 300;
const READ_BYTES: usize = 16 * 1024;

/// Takes connections until told to stop; those open then are told so and closed.
pub(crate) async fn serve(listener: TcpListener, mailbox: Arc<Mailbox>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let sessions = TaskTracker::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of sockets, most likely: wait for one instead of spinning.
                tracing::warn!(%error, "cannot accept SMTP connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (mailbox, shutdown) = (Arc::clone(&mailbox), shutdown.clone());
        sessions.spawn(async move {
            if let Err(error) = Session::new(stream, mailbox).run(shutdown).await {
                tracing::debug!(%error, "SMTP connection lost");
            }
            drop(slot);
        });
    }
    sessions.close();
    sessions.wait().await;
}

/// What a connection does after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Continue,
    /// Send what is written, then close.
    Close,
    /// Close without sending.
    HangUp,
}

struct Session {
    stream: TcpStream,
    mailbox: Arc<Mailbox>,
    /// Replies not yet sent: those to pipelined commands go in one write.
    out: Vec<u8>,
    greeted: bool,
    envelope: Option<Envelope>,
    errors: u32,
}

#[derive(Default)]
struct Envelope {
    recipients: Vec<String>,
}

impl Session {
    fn new(stream: TcpStream, mailbox: Arc<Mailbox>) -> Self {
        Self { stream, mailbox, out: Vec::new(), greeted: false, envelope: None, errors: 0 }
    }

    async fn run(mut self, shutdown: CancellationToken) -> io::Result<()> {
        if self.mailbox.refuses_connection(Channel::Email) {
            return Ok(());
        }
        self.reply("220 sink ESMTP");
        self.flush().await?;
        let mut commands = RequestReceiver::default();
        let mut incoming: Option<Incoming> = None;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = tokio::select! {
                () = shutdown.cancelled() => {
                    self.reply("421 4.3.2 The sink stops");
                    return self.flush().await;
                }
                read = timeout(Duration::from_secs(IDLE_SECONDS_MAX), self.stream.read(&mut buffer)) => read,
            };
            let Ok(read) = read else {
                self.reply("421 4.4.2 Idle for too long");
                return self.flush().await;
            };
            let read = read?;
            if read == 0 {
                return Ok(());
            }
            match self.take(buffer[..read].iter(), &mut commands, &mut incoming).await {
                Then::Continue => self.flush().await?,
                Then::Close => return self.flush().await,
                Then::HangUp => return Ok(()),
            }
        }
    }

    /// Takes in what was read: commands, data or both.
    async fn take(
        &mut self,
        mut bytes: Iter<'_, u8>,
        commands: &mut RequestReceiver,
        incoming: &mut Option<Incoming>,
    ) -> Then {
        loop {
            if let Some(mail) = incoming {
                if !mail.take(&mut bytes) {
                    return if mail.is_endless() { Then::HangUp } else { Then::Continue };
                }
                let mail = incoming.take().expect("it was just looked at");
                match self.receive(mail).await {
                    Then::Continue => {}
                    then => return then,
                }
            }
            let then = match commands.ingest(&mut bytes) {
                Ok(Request::Data) => self.start_data(incoming),
                Ok(request) => self.command(request),
                Err(Syntax::NeedsMoreData { .. }) => return Then::Continue,
                Err(error) => self.syntax_error(&error),
            };
            if then != Then::Continue {
                return then;
            }
        }
    }

    fn command<T: AsRef<str>>(&mut self, request: Request<T>) -> Then {
        match request {
            Request::Ehlo { .. } => {
                self.restart(true);
                let size = format!("250-SIZE {MAIL_BYTES_MAX}");
                for line in ["250-sink", "250-PIPELINING", &size, "250-8BITMIME", "250-SMTPUTF8"] {
                    self.reply(line);
                }
                self.reply("250 ENHANCEDSTATUSCODES");
            }
            Request::Helo { .. } => {
                self.restart(true);
                self.reply("250 sink");
            }
            Request::Mail { from } => return self.mail(from.size),
            Request::Rcpt { to } => return self.recipient(to.address.as_ref()),
            Request::Rset => {
                self.restart(self.greeted);
                self.reply("250 2.0.0 Forgotten");
            }
            Request::Noop { .. } => self.reply("250 2.0.0 OK"),
            Request::Vrfy { .. } => self.reply("252 2.5.0 Send it and see"),
            Request::Help { .. } => self.reply("214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP"),
            Request::Quit => {
                self.reply("221 2.0.0 Bye");
                return Then::Close;
            }
            other => return self.error(&format!("502 5.5.1 {} is not offered", other.name())),
        }
        Then::Continue
    }

    fn mail(&mut self, announced_bytes: usize) -> Then {
        if !self.greeted {
            return self.error("503 5.5.1 EHLO or HELO first");
        }
        if self.envelope.is_some() {
            return self.error("503 5.5.1 There is a sender already");
        }
        if announced_bytes > MAIL_BYTES_MAX {
            return self.error("552 5.3.4 Mail too large");
        }
        self.envelope = Some(Envelope::default());
        self.reply("250 2.1.0 Sender taken");
        Then::Continue
    }

    fn recipient(&mut self, address: &str) -> Then {
        match &mut self.envelope {
            None => self.error("503 5.5.1 MAIL first"),
            Some(envelope) if envelope.recipients.len() >= RECIPIENTS_MAX => {
                self.error("452 4.5.3 Too many recipients")
            }
            Some(envelope) => {
                envelope.recipients.push(address.to_owned());
                self.reply("250 2.1.5 Recipient taken");
                Then::Continue
            }
        }
    }

    fn start_data(&mut self, incoming: &mut Option<Incoming>) -> Then {
        match &self.envelope {
            Some(envelope) if !envelope.recipients.is_empty() => {
                self.reply("354 End data with <CR><LF>.<CR><LF>");
                *incoming = Some(Incoming::new());
                Then::Continue
            }
            Some(_) => self.error("503 5.5.1 RCPT first"),
            None => self.error("503 5.5.1 MAIL first"),
        }
    }

    /// Keeps a whole mail, as the plan allows, and answers it.
    async fn receive(&mut self, mail: Incoming) -> Then {
        let envelope = self.envelope.take().unwrap_or_default();
        if mail.is_too_large() {
            return self.error("552 5.3.4 Mail too large");
        }
        let Some(messages) = messages(mail.content(), envelope.recipients) else {
            return self.error("554 5.6.0 This is no mail");
        };
        let turn = messages.iter().find_map(|message| self.mailbox.twist(message));
        match turn.map(|turn| turn.mode) {
            Some(SinkMode::Down) => return Then::HangUp,
            Some(SinkMode::Reject4xx) => {
                self.reply("451 4.3.0 The plan says: not now");
                return Then::Continue;
            }
            Some(SinkMode::Reject5xx) => {
                self.reply("554 5.7.1 The plan says: never");
                return Then::Continue;
            }
            Some(SinkMode::Normal | SinkMode::Slow | SinkMode::CutAnswer) | None => {}
        }
        if let Err(error) = self.mailbox.keep(&messages) {
            tracing::error!(%error, "the journal failed");
            self.reply("451 4.3.0 Cannot be kept now");
            return Then::Continue;
        }
        match turn {
            Some(turn) if turn.mode == SinkMode::Slow => {
                tokio::time::sleep(turn.delay.unwrap_or(SLOW_DELAY)).await;
            }
            Some(turn) if turn.mode == SinkMode::CutAnswer => return Then::HangUp,
            _ => {}
        }
        self.reply("250 2.0.0 Kept");
        Then::Continue
    }

    fn syntax_error(&mut self, error: &Syntax) -> Then {
        match error {
            // The rest of the line would be read as further commands.
            Syntax::ResponseTooLong => {
                self.reply("500 5.5.2 Line too long");
                Then::Close
            }
            Syntax::UnknownCommand => self.error("500 5.5.1 Unknown command"),
            Syntax::InvalidSenderAddress => self.error("501 5.1.7 Not an address"),
            Syntax::InvalidRecipientAddress => self.error("501 5.1.3 Not an address"),
            Syntax::SyntaxError { syntax } => self.error(&format!("501 5.5.2 Syntax: {syntax}")),
            _ => self.error("501 5.5.4 Parameter not understood"),
        }
    }

    fn restart(&mut self, greeted: bool) {
        self.greeted = greeted;
        self.envelope = None;
    }

    fn error(&mut self, line: &str) -> Then {
        self.errors += 1;
        self.reply(line);
        if self.errors < ERRORS_MAX {
            return Then::Continue;
        }
        self.reply("421 4.7.0 Too many errors");
        Then::Close
    }

    fn reply(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    async fn flush(&mut self) -> io::Result<()> {
        timeout(Duration::from_secs(IDLE_SECONDS_MAX), self.stream.write_all(&self.out)).await??;
        self.out.clear();
        Ok(())
    }
}
