//! What the sink received, in the order of arrival, repeats included. It judges nothing and removes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::archive::{Archive, Document};
use crate::listing::{Page, Window};
use crate::plan::{Plan, SinkMode, Turn};

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Channel {
    Email,
    Sms,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Email => "EMAIL",
            Self::Sms => "SMS",
        }
    }
}

/// One message to one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    /// Of mail the Message-ID without its angle brackets, null where the mail had none.
    pub(crate) message_id: Option<String>,
    pub(crate) channel: Channel,
    pub(crate) to: String,
    /// Null for SMS.
    pub(crate) subject: Option<String>,
    pub(crate) body: String,
    /// When it arrived: RFC 3339, UTC, milliseconds.
    pub(crate) at: String,
}

impl Document for Message {
    type Key = u64;

    /// Every number in it, so that a message is found by the order it speaks of.
    fn keys(&self) -> Vec<u64> {
        let texts =
            [self.message_id.as_deref().unwrap_or_default(), self.subject.as_deref().unwrap_or_default(), &self.body];
        let words = texts.iter().flat_map(|text| text.split(|letter: char| !letter.is_ascii_digit()));
        words.filter_map(|digits| digits.parse().ok()).collect::<BTreeSet<u64>>().into_iter().collect()
    }
}

/// The messages and the plan in force.
#[derive(Debug)]
pub(crate) struct Mailbox {
    messages: Mutex<Archive<Message>>,
    plan: Mutex<Plan<SinkMode>>,
}

impl Mailbox {
    /// # Errors
    /// As [`Archive::open`].
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { messages: Mutex::new(Archive::open(path)?), plan: Mutex::new(Plan::default()) })
    }

    /// Keeps the messages; they survive `kill -9` when this returns.
    ///
    /// # Errors
    /// The file system's; then a first part of them may have been kept.
    pub(crate) fn keep(&self, messages: &[Message]) -> std::io::Result<()> {
        let mut archive = self.messages();
        messages.iter().try_for_each(|message| archive.append(message))
    }

    /// A page of all messages, or of those that contain a number.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn page(&self, number: Option<u64>, window: Window) -> std::io::Result<Page<Box<RawValue>>> {
        self.messages().page(number.as_ref(), window)
    }

    /// What the plan makes of a message.
    pub(crate) fn twist(&self, message: &Message) -> Option<Turn<SinkMode>> {
        let names = [message.channel.name(), &message.to, message.message_id.as_deref().unwrap_or_default()];
        self.plan().take(&names, |_| true)
    }

    /// Whether the plan closes a new connection of the channel before any message has come; uses it up by one.
    pub(crate) fn refuses_connection(&self, channel: Channel) -> bool {
        self.plan().take(&[channel.name()], |mode| mode == SinkMode::Down).is_some()
    }

    pub(crate) fn plan(&self) -> MutexGuard<'_, Plan<SinkMode>> {
        self.plan.lock().expect("nothing panics while it holds the plan")
    }

    /// See [`crate::journal::Journal::unlock`].
    pub(crate) fn close(&self) {
        self.messages().unlock();
    }

    fn messages(&self) -> MutexGuard<'_, Archive<Message>> {
        self.messages.lock().expect("nothing panics while it holds the messages")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(to: &str, body: &str) -> Message {
        Message {
            message_id: Some("note-77@shop".to_owned()),
            channel: Channel::Sms,
            to: to.to_owned(),
            subject: None,
            body: body.to_owned(),
            at: String::new(),
        }
    }

    #[test]
    fn a_message_is_found_by_whole_numbers_in_it() {
        assert_eq!(message("+1", "Order 123, again 123: 4.50 due").keys(), [4, 50, 77, 123]);
    }

    #[test]
    fn a_plan_is_limited_to_a_channel_or_recipient() {
        let dir = tempfile::tempdir().unwrap();
        let mailbox = Mailbox::open(&dir.path().join("m")).unwrap();
        *mailbox.plan() = serde_json::from_str(r#"{"mode":"reject_4xx","keys":["EMAIL","+2"]}"#).unwrap();
        assert_eq!(mailbox.twist(&message("+1", "")), None);
        assert!(mailbox.twist(&message("+2", "")).is_some());
        assert!(!mailbox.refuses_connection(Channel::Email));
    }
}
