//! Mail between DATA and its end: found by `smtp-proto`, read by `mail-parser`. It keeps nothing and answers nothing.

use std::slice::Iter;

use mail_parser::MessageParser;
use smtp_proto::request::receiver::DataReceiver;

use crate::clock::{now_ms, rfc3339};
use crate::mailbox::{Channel, Message};

/// Largest mail in bytes.
pub(crate) const MAIL_BYTES_MAX: usize = 1024 * 1024;
/// A client that sends on although its mail is too large is heard out up to here.
const EXCESS_BYTES_MAX: usize = 16 * MAIL_BYTES_MAX;

/// Mail on its way in.
pub(crate) struct Incoming {
    receiver: DataReceiver,
    bytes: Vec<u8>,
    /// Bytes beyond the limit, not kept.
    excess: usize,
}

/// `smtp-proto` looks for the end of data behind a line; the one before the first is the DATA command's.
const LINE_BEFORE: &[u8] = b"\r\n";

impl Incoming {
    pub(crate) fn new() -> Self {
        let mut mail = Self { receiver: DataReceiver::new(), bytes: Vec::new(), excess: 0 };
        mail.receiver.ingest(&mut LINE_BEFORE.iter(), &mut mail.bytes);
        mail
    }

    /// True when the mail is whole.
    pub(crate) fn take(&mut self, bytes: &mut Iter<'_, u8>) -> bool {
        let whole = self.receiver.ingest(bytes, &mut self.bytes);
        let limit = LINE_BEFORE.len() + MAIL_BYTES_MAX;
        if self.bytes.len() > limit {
            self.excess += self.bytes.len() - limit;
            self.bytes.truncate(limit);
        }
        whole
    }

    /// More than the limit was sent.
    pub(crate) fn is_too_large(&self) -> bool {
        self.excess > 0
    }

    /// So much was sent that the end is not worth waiting for.
    pub(crate) fn is_endless(&self) -> bool {
        self.excess > EXCESS_BYTES_MAX
    }

    /// The mail without dot stuffing.
    pub(crate) fn content(&self) -> &[u8] {
        self.bytes.get(LINE_BEFORE.len()..).unwrap_or_default()
    }
}

/// One message for each recipient; none when the bytes are no mail.
pub(crate) fn messages(mail: &[u8], recipients: Vec<String>) -> Option<Vec<Message>> {
    let parsed = MessageParser::default().parse(mail)?;
    let body = parsed.body_text(0).unwrap_or_default().replace("\r\n", "\n");
    let at = rfc3339(now_ms());
    let message = |to| Message {
        message_id: parsed.message_id().map(str::to_owned),
        channel: Channel::Email,
        to,
        subject: parsed.subject().map(str::to_owned),
        body: body.clone(),
        at: at.clone(),
    };
    Some(recipients.into_iter().map(message).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(pieces: &[&str]) -> Option<Vec<u8>> {
        let mut mail = Incoming::new();
        let whole = pieces.iter().any(|piece| mail.take(&mut piece.as_bytes().iter()));
        whole.then(|| mail.content().to_vec())
    }

    #[test]
    fn dots_are_unstuffed_wherever_the_network_cuts() {
        let wire = "a: b\r\n\r\n..one\r\n.\r\n";
        for cut in 0..=wire.len() {
            let (head, tail) = wire.split_at(cut);
            assert_eq!(received(&[head, tail]).unwrap(), b"a: b\r\n\r\n.one\r\n", "cut at {cut}");
        }
    }

    #[test]
    fn an_empty_mail_ends_at_once() {
        assert_eq!(received(&[".\r\n"]).unwrap(), b"");
    }

    #[test]
    fn a_bare_line_feed_ends_nothing() {
        assert_eq!(received(&["x\n.\n"]), None);
        assert_eq!(received(&["x\n.\r\n"]), None);
    }

    #[test]
    fn too_much_is_not_kept() {
        let mut mail = Incoming::new();
        let block = vec![b'x'; MAIL_BYTES_MAX];
        assert!(!mail.take(&mut block.iter()));
        assert!(!mail.is_too_large());
        assert!(!mail.take(&mut block.iter()));
        assert!(mail.is_too_large());
        assert_eq!(mail.content().len(), MAIL_BYTES_MAX);
    }

    #[test]
    fn a_mail_becomes_one_message_for_each_recipient() {
        let mail = "Message-ID: <1.ORDER_CONFIRMED@shop>\r\nSubject: =?utf-8?Q?Order_=E2=9C=93?=\r\n\
                    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nT3JkZXIgMQ0KeA==\r\n";
        let kept = messages(mail.as_bytes(), vec!["a@x".to_owned(), "b@x".to_owned()]).unwrap();
        assert_eq!(kept.iter().map(|message| message.to.as_str()).collect::<Vec<_>>(), ["a@x", "b@x"]);
        assert_eq!(kept[0].message_id.as_deref(), Some("1.ORDER_CONFIRMED@shop"));
        assert_eq!(kept[0].subject.as_deref(), Some("Order ✓"));
        assert_eq!(kept[0].body, "Order 1\nx");
    }
}
