//! The rules of the notices: which is due, on which channels, and when none is sent. Read this first.
//!
//! Pure: nothing is stored, sent or looked up here; times and the channels that a customer can be reached on arrive in
//! the input. The shape of a notice is in [`crate::state`], its words are in [`crate::letter`].

use std::collections::BTreeMap;
use std::time::Duration;

use events::code::{Channel, NoticeKind, SkipReason};
use events::id::OrderId;
use events::notification::{
    NotificationEvent, NotificationFailed, NotificationScheduled, NotificationSent, NotificationSkipped,
};
use events::order::OrderEvent;
use events::payment::PaymentEvent;
use events::record::Recorded;
use events::time::Timestamp;

pub use crate::state::{Delivery, Fate, Letter, Notice, State, message_id, settles};

/// A notice whose cause is older than this is not sent any more.
pub const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What can happen to the notices of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Something happened that the customer is told of.
    Occasion {
        /// What.
        occasion: Occasion,
        /// The channels that the customer can be reached on now.
        reachable: Vec<Channel>,
        /// Postgres' clock.
        now: Timestamp,
    },
    /// A try to send a notice on one channel came to an end.
    Answer {
        /// Of which order.
        order_id: OrderId,
        /// Which notice.
        kind: NoticeKind,
        /// On which channel.
        channel: Channel,
        /// What came of it.
        report: Report,
    },
}

/// A foreign event that the customer is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occasion {
    /// Of which order.
    pub order_id: OrderId,
    /// Whose order it is.
    pub customer_id: String,
    /// What it is about.
    pub kind: NoticeKind,
    /// What is said.
    pub letter: Letter,
    /// When it happened: `ce_time` of the event.
    pub at: Timestamp,
}

/// What came of a try to send a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It was handed over.
    Sent,
    /// It was refused for good; why, as a code.
    Refused(String),
    /// The order is settled, so there is nothing to be reminded of.
    Settled,
    /// It is due for more than [`AGE_MAX`].
    TooOld,
    /// The customer cannot be reached on this channel any more, but on another.
    ChannelGone,
    /// The customer cannot be reached at all any more.
    NoContact,
}

/// Why an answer cannot be right. No command comes here, so nothing is refused to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody asked for this notice to be sent on this channel.
    #[error("no such notice was scheduled")]
    UnknownNotice,
}

impl Refusal {
    /// The reason as a code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownNotice => "UNKNOWN_NOTICE",
        }
    }
}

/// Judges one input.
///
/// # Errors
/// [`Refusal`] of an answer that nobody can have asked for.
pub fn decide(state: &State, input: &Input) -> Result<Option<NotificationEvent>, Refusal> {
    match input {
        Input::Occasion { occasion, reachable, now } => Ok(announce(state, occasion, reachable, *now)),
        Input::Answer { order_id, kind, channel, report } => answered(state, *order_id, *kind, *channel, report),
    }
}

/// One step of the fold. An event that cannot follow leaves the state as it is: `decide` makes none.
#[must_use]
pub fn evolve(mut state: State, event: &Recorded<NotificationEvent>) -> State {
    match &event.event {
        NotificationEvent::NotificationScheduled(scheduled) => {
            let channels = scheduled.channels.iter().map(|channel| (*channel, Delivery::Pending)).collect();
            let fate = Fate::Scheduled {
                letter: Letter {
                    total: scheduled.total,
                    reason: scheduled.reason.clone(),
                    pay_by: scheduled.pay_by,
                    pay_url: scheduled.pay_url.clone(),
                },
                due_at: scheduled.due_at,
                set_by: event.mark(),
                channels,
            };
            let notice = Notice { customer_id: scheduled.customer_id.clone(), fate, updated_at: event.at };
            state.notices.entry(scheduled.kind).or_insert(notice);
        }
        NotificationEvent::NotificationSkipped(skipped) => {
            let fate = Fate::Skipped(skipped.reason);
            let notice = Notice { customer_id: skipped.customer_id.clone(), fate, updated_at: event.at };
            state.notices.insert(skipped.kind, notice);
        }
        NotificationEvent::NotificationSent(sent) => {
            delivered(&mut state, sent.kind, sent.channel, Delivery::Sent, event.at);
        }
        NotificationEvent::NotificationFailed(failed) => {
            delivered(&mut state, failed.kind, failed.channel, Delivery::Failed, event.at);
        }
    }
    state
}

fn delivered(state: &mut State, kind: NoticeKind, channel: Channel, delivery: Delivery, at: Timestamp) {
    let Some(notice) = state.notices.get_mut(&kind) else { return };
    if let Fate::Scheduled { channels, .. } = &mut notice.fate
        && let Some(entry) = channels.get_mut(&channel)
    {
        *entry = delivery;
        notice.updated_at = at;
    }
}

/// One notice per order and kind, and one end per order: whatever comes again says nothing new.
fn announce(state: &State, occasion: &Occasion, reachable: &[Channel], now: Timestamp) -> Option<NotificationEvent> {
    let Occasion { order_id, customer_id, kind, letter, at } = occasion;
    if state.notices.contains_key(kind) || (settles(*kind) && state.is_settled()) {
        return None;
    }
    let due_at = due_at(occasion, now);
    let reason = if *kind == NoticeKind::PaymentReminder && state.is_settled() {
        Some(SkipReason::Settled)
    } else if at.plus(AGE_MAX) < now {
        Some(SkipReason::TooOld)
    } else {
        reachable.is_empty().then_some(SkipReason::NoContact)
    };
    if let Some(reason) = reason {
        return Some(skipped(*order_id, customer_id, *kind, reason));
    }
    let Letter { total, reason, pay_by, pay_url } = letter.clone();
    Some(NotificationEvent::from(NotificationScheduled {
        order_id: *order_id,
        customer_id: customer_id.clone(),
        kind: *kind,
        channels: reachable.to_vec(),
        due_at,
        total,
        reason,
        pay_by,
        pay_url,
    }))
}

/// A reminder waits until half of the time to pay is over; all else is told at once.
fn due_at(occasion: &Occasion, now: Timestamp) -> Timestamp {
    match occasion.letter.pay_by {
        Some(pay_by) if occasion.kind == NoticeKind::PaymentReminder => occasion.at.midpoint(pay_by),
        Some(_) | None => now,
    }
}

fn answered(
    state: &State,
    order_id: OrderId,
    kind: NoticeKind,
    channel: Channel,
    report: &Report,
) -> Result<Option<NotificationEvent>, Refusal> {
    let notice = state.notices.get(&kind).ok_or(Refusal::UnknownNotice)?;
    let channels = match &notice.fate {
        Fate::Scheduled { channels, .. } => channels,
        // The answer on another channel got ahead and settled the whole notice.
        Fate::Skipped(_) => return Ok(None),
    };
    match channels.get(&channel) {
        None => return Err(Refusal::UnknownNotice),
        Some(Delivery::Sent | Delivery::Failed) => return Ok(None),
        Some(Delivery::Pending) => {}
    }
    let customer_id = &notice.customer_id;
    let failed = |reason: &str| {
        NotificationEvent::from(NotificationFailed {
            order_id,
            customer_id: customer_id.clone(),
            kind,
            channel,
            reason: reason.to_owned(),
        })
    };
    // A notice is skipped as a whole, so only while nothing of it was sent.
    let skip = |reason: SkipReason| {
        if was_sent(channels) { failed(reason.as_str()) } else { skipped(order_id, customer_id, kind, reason) }
    };
    Ok(Some(match report {
        // Happy path
        Report::Sent => NotificationEvent::from(NotificationSent {
            order_id,
            customer_id: customer_id.clone(),
            kind,
            channel,
            message_id: message_id(order_id, kind, channel),
        }),
        // Compensation
        Report::Refused(reason) => failed(reason),
        Report::ChannelGone => failed(SkipReason::NoContact.as_str()),
        Report::Settled => skip(SkipReason::Settled),
        Report::TooOld => skip(SkipReason::TooOld),
        Report::NoContact => skip(SkipReason::NoContact),
    }))
}

/// A pending notice that is due on one channel, and what is known when a try begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Of which order.
    pub order_id: OrderId,
    /// Which notice.
    pub kind: NoticeKind,
    /// On which channel.
    pub channel: Channel,
    /// Since when.
    pub due_at: Timestamp,
    /// It is known how the order ended.
    pub settled: bool,
    /// The channels that the customer can be reached on now.
    pub reachable: Vec<Channel>,
}

/// Why a due notice is not sent after all; `None` when it is to be sent.
#[must_use]
pub fn obstacle(due: &Due, now: Timestamp) -> Option<Report> {
    if due.kind == NoticeKind::PaymentReminder && due.settled {
        Some(Report::Settled)
    } else if due.due_at.plus(AGE_MAX) < now {
        Some(Report::TooOld)
    } else if due.reachable.is_empty() {
        Some(Report::NoContact)
    } else {
        (!due.reachable.contains(&due.channel)).then_some(Report::ChannelGone)
    }
}

fn was_sent(channels: &BTreeMap<Channel, Delivery>) -> bool {
    channels.values().any(|delivery| *delivery == Delivery::Sent)
}

fn skipped(order_id: OrderId, customer_id: &str, kind: NoticeKind, reason: SkipReason) -> NotificationEvent {
    NotificationEvent::from(NotificationSkipped { order_id, customer_id: customer_id.to_owned(), kind, reason })
}

impl Input {
    /// The order it is about.
    #[must_use]
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Occasion { occasion, .. } => occasion.order_id,
            Self::Answer { order_id, .. } => *order_id,
        }
    }
}

impl Occasion {
    /// What order-svc's event of this time is to the customer; `None` for one that they are not told of.
    #[must_use]
    pub fn from_order(event: OrderEvent, at: Timestamp) -> Option<Self> {
        let (order_id, customer_id, kind, total, reason) = match event {
            OrderEvent::OrderConfirmed(event) => {
                (event.order_id, event.customer_id, NoticeKind::OrderConfirmed, event.total, None)
            }
            OrderEvent::OrderCancelled(event) => {
                let reason = Some(event.reason.as_str().to_owned());
                (event.order_id, event.customer_id, NoticeKind::OrderCancelled, event.total, reason)
            }
            OrderEvent::OrderExpired(event) => {
                (event.order_id, event.customer_id, NoticeKind::OrderExpired, event.total, None)
            }
            OrderEvent::OrderPlaced(_) | OrderEvent::OrderRejected(_) | OrderEvent::CommandRefused(_) => return None,
        };
        let letter = Letter { total: Some(total), reason, ..Letter::default() };
        Some(Self { order_id, customer_id, kind, letter, at })
    }

    /// What payment-svc's event of this time is to the customer; `None` for one that they are not told of.
    ///
    /// A capture is none: the confirmation that follows it says so, and settles the order for the reminder too.
    #[must_use]
    pub fn from_payment(event: PaymentEvent, at: Timestamp) -> Option<Self> {
        match event {
            PaymentEvent::PaymentRequested(event) => {
                let letter = Letter {
                    total: Some(event.total),
                    reason: None,
                    pay_by: Some(event.pay_by),
                    pay_url: event.pay_url,
                };
                let (order_id, customer_id) = (event.order_id, event.customer_id);
                Some(Self { order_id, customer_id, kind: NoticeKind::PaymentReminder, letter, at })
            }
            PaymentEvent::PaymentRefunded(event) => {
                let letter = Letter { total: Some(event.amount), ..Letter::default() };
                let (order_id, customer_id) = (event.order_id, event.customer_id);
                Some(Self { order_id, customer_id, kind: NoticeKind::PaymentRefunded, letter, at })
            }
            PaymentEvent::PaymentCaptured(_)
            | PaymentEvent::PaymentDeclined(_)
            | PaymentEvent::PaymentFailed(_)
            | PaymentEvent::PaymentCancelRequested(_)
            | PaymentEvent::PaymentCancelled(_)
            | PaymentEvent::RefundRequested(_)
            | PaymentEvent::RefundFailed(_)
            | PaymentEvent::CommandRefused(_) => None,
        }
    }
}
