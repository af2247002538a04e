//! What a batch does here: which topics are read, which notices and contacts are loaded, what is decided, saved and sent.
//!
//! The rules are [`crate::domain`]'s, the statements [`crate::store`]'s, the calls [`crate::mailer`]'s, the batch itself
//! the engine's. A reminder is an effect with a time, not a timer: nothing happens when it is due but that it is sent.

use std::collections::{BTreeMap, BTreeSet};

use engine::failpoint;
use engine::service::{
    About, Decoded, Description, EffectMark, Failure, Homes, InputTopic, Outcome, Service, Table, TopicKind, Try,
};
use events::code::{Channel, NoticeKind};
use events::codec::{Codec, DecodeError, EncodeError};
use events::id::OrderId;
use events::notification::NotificationEvent;
use events::order::OrderEvent;
use events::payment::PaymentEvent;
use events::record::{Recorded, SetBy};
use events::time::Timestamp;
use sqlx::PgConnection;

use crate::contact::Contact;
use crate::domain::{self, Delivery, Due, Fate, Letter, Notice, Occasion, State, obstacle};
use crate::mailer::{Mailer, Parcel, Verdict};
use crate::store;

/// The fixed facts of this service.
pub const DESCRIPTION: Description = Description {
    name: "notify-svc",
    number: 4,
    inputs: &[
        InputTopic { name: OrderEvent::TOPIC, kind: TopicKind::Events },
        InputTopic { name: PaymentEvent::TOPIC, kind: TopicKind::Events },
    ],
    events_topic: NotificationEvent::TOPIC,
    read_model: None,
    projection_version: 1,
    tables: &[Table { name: "notices", key: "order_id, kind", read_model: false }],
};

/// Why a notice was not sent that an operator gave up.
const DISCARDED: &str = "DISCARDED";

/// The notification service, as the engine runs it.
#[derive(Debug, Clone)]
pub struct Notices {
    /// How notices leave. A fold sends nothing, so it has none.
    pub mailer: Option<Mailer>,
}

/// What a record, or an answer, means here.
#[derive(Debug)]
pub enum Input {
    /// Something the customer is told of; where they can be reached is added when it is decided.
    Occasion(Occasion),
    /// What came of a try to send.
    Answer(domain::Input),
}

/// The notices of a batch: as loaded, then as every event leaves them; and where the customers can be reached.
#[derive(Debug, Default)]
pub struct States {
    orders: BTreeMap<OrderId, State>,
    contacts: BTreeMap<String, Contact>,
    /// They had no row when the batch began.
    new: BTreeSet<(OrderId, NoticeKind)>,
    /// They have a row that is to be changed.
    changed: BTreeSet<(OrderId, NoticeKind)>,
}

/// What one try needs.
#[derive(Debug)]
pub struct Effect {
    due: Due,
    letter: Letter,
    /// The address on the due channel, unless it is gone.
    to: Option<Address>,
}

/// An address that does not show itself.
struct Address(String);

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address(…)")
    }
}

/// The effect's name: each notice is sent once per channel.
fn effect_name(kind: NoticeKind, channel: Channel) -> &'static str {
    match (kind, channel) {
        (NoticeKind::OrderConfirmed, Channel::Email) => "ORDER_CONFIRMED.EMAIL",
        (NoticeKind::OrderConfirmed, Channel::Sms) => "ORDER_CONFIRMED.SMS",
        (NoticeKind::OrderCancelled, Channel::Email) => "ORDER_CANCELLED.EMAIL",
        (NoticeKind::OrderCancelled, Channel::Sms) => "ORDER_CANCELLED.SMS",
        (NoticeKind::OrderExpired, Channel::Email) => "ORDER_EXPIRED.EMAIL",
        (NoticeKind::OrderExpired, Channel::Sms) => "ORDER_EXPIRED.SMS",
        (NoticeKind::PaymentReminder, Channel::Email) => "PAYMENT_REMINDER.EMAIL",
        (NoticeKind::PaymentReminder, Channel::Sms) => "PAYMENT_REMINDER.SMS",
        (NoticeKind::PaymentRefunded, Channel::Email) => "PAYMENT_REFUNDED.EMAIL",
        (NoticeKind::PaymentRefunded, Channel::Sms) => "PAYMENT_REFUNDED.SMS",
    }
}

/// Kind and channel of an effect's name.
fn effect_of(name: &str) -> Option<(NoticeKind, Channel)> {
    let (kind, channel) = name.split_once('.')?;
    Some((NoticeKind::parse(kind).ok()?, Channel::parse(channel).ok()?))
}

fn mark(order_id: OrderId, kind: NoticeKind, channel: Channel, due_at: Timestamp, set_by: SetBy) -> EffectMark {
    // What is told at once waits for nothing but its event. A reminder waits until everything before it has been read.
    let not_before = (kind == NoticeKind::PaymentReminder).then_some(due_at);
    EffectMark { key: order_id.0, kind: effect_name(kind, channel), set_by, not_before }
}

impl Service for Notices {
    type Input = Input;
    type Event = NotificationEvent;
    type States = States;
    type Effect = Effect;

    fn describe(&self) -> Description {
        DESCRIPTION
    }

    fn decode(
        &self,
        codec: &Codec,
        topic: &str,
        value: &[u8],
        at: Timestamp,
    ) -> Result<Option<Decoded<Input>>, DecodeError> {
        let occasion = match topic {
            OrderEvent::TOPIC => Occasion::from_order(OrderEvent::decode(codec, value)?, at),
            PaymentEvent::TOPIC => Occasion::from_payment(PaymentEvent::decode(codec, value)?, at),
            other => unreachable!("{other} is no input of this service"),
        };
        let decoded =
            |occasion: Occasion| Decoded { key: occasion.order_id.0, input: Input::Occasion(occasion), command: None };
        Ok(occasion.map(decoded))
    }

    fn kind(&self, _topic: &str, _type_name: &str) -> Option<&'static str> {
        Some("order")
    }

    fn decode_own(&self, codec: &Codec, value: &[u8]) -> Result<NotificationEvent, DecodeError> {
        NotificationEvent::decode(codec, value)
    }

    fn encode(&self, codec: &Codec, event: &NotificationEvent) -> Result<Vec<u8>, EncodeError> {
        event.encode(codec)
    }

    fn about(&self, event: &NotificationEvent) -> About {
        let key = event.order_id().0;
        About { type_name: event.type_name(), key, correlation: Some(key), command: None, refused: None }
    }

    async fn load(
        &self,
        conn: &mut PgConnection,
        inputs: &[&Input],
        events: &[&NotificationEvent],
    ) -> Result<States, sqlx::Error> {
        let mut orders: BTreeSet<i64> = events.iter().map(|event| event.order_id().0).collect();
        let mut customers = BTreeSet::new();
        for input in inputs {
            match input {
                Input::Occasion(occasion) => {
                    orders.insert(occasion.order_id.0);
                    customers.insert(occasion.customer_id.as_str());
                }
                Input::Answer(answer) => {
                    orders.insert(answer.order_id().0);
                }
            }
        }
        let mut states = States::default();
        if !orders.is_empty() {
            states.orders = store::load_notices(conn, &Vec::from_iter(orders)).await?;
        }
        if !customers.is_empty() {
            states.contacts = store::load_contacts(conn, &Vec::from_iter(customers)).await?;
        }
        Ok(states)
    }

    fn decide(&self, states: &States, input: &Input, now: Timestamp) -> Result<Option<NotificationEvent>, Failure> {
        let decided = match input {
            Input::Occasion(occasion) => {
                let contact = states.contacts.get(&occasion.customer_id);
                let reachable = contact.map(Contact::reachable).unwrap_or_default();
                let told = domain::Input::Occasion { occasion: occasion.clone(), reachable, now };
                states.decide(&told)
            }
            Input::Answer(answer) => states.decide(answer),
        };
        decided.map_err(|refusal| Failure { code: refusal.code(), message: refusal.to_string() })
    }

    fn refuse(&self, _states: &States, _input: &Input, _reason: &str, _operator: &str) -> Option<NotificationEvent> {
        None
    }

    fn may_be_discarded(&self, type_name: &str) -> bool {
        !OrderEvent::ends_order(type_name)
    }

    /// That a notice was never sent is said, and by whom it was given up.
    fn discard_effect(&self, key: i64, effect: &str) -> Option<Input> {
        let (kind, channel) = effect_of(effect)?;
        let report = domain::Report::Refused(DISCARDED.to_owned());
        Some(Input::Answer(domain::Input::Answer { order_id: OrderId(key), kind, channel, report }))
    }

    fn evolve(&self, states: &mut States, event: &Recorded<NotificationEvent>) {
        let (order_id, kind) = (event.event.order_id(), kind_of(&event.event));
        let state = states.orders.entry(order_id).or_default();
        let known = state.notices.contains_key(&kind);
        *state = domain::evolve(std::mem::take(state), event);
        if !known {
            states.new.insert((order_id, kind));
        } else if !states.new.contains(&(order_id, kind)) {
            states.changed.insert((order_id, kind));
        }
    }

    async fn save(&self, conn: &mut PgConnection, homes: Homes, states: &States) -> Result<(), sqlx::Error> {
        let new: BTreeMap<_, _> = states.among(&states.new).collect();
        if !new.is_empty() {
            store::insert_notices(conn, homes, &new).await?;
        }
        let changed: BTreeMap<_, _> = states.among(&states.changed).collect();
        if !changed.is_empty() {
            store::update_notices(conn, &changed).await?;
        }
        Ok(())
    }

    fn effects_set(&self, states: &States) -> Vec<EffectMark> {
        let set = states.among(&states.new).filter_map(|((order_id, kind), notice)| match &notice.fate {
            // It had no row, so the event that asks for it is one of this batch; and nothing was answered yet.
            Fate::Scheduled { due_at, set_by, channels, .. }
                if channels.values().all(|delivery| *delivery == Delivery::Pending) =>
            {
                Some(channels.keys().map(move |channel| mark(order_id, kind, *channel, *due_at, *set_by)))
            }
            Fate::Scheduled { .. } | Fate::Skipped(_) => None,
        });
        set.flatten().collect()
    }

    async fn effects_due(&self, conn: &mut PgConnection, partition: i32) -> Result<Vec<EffectMark>, sqlx::Error> {
        let pending = store::pending_notices(conn, partition).await?;
        let marks = pending.iter().flat_map(|notice| {
            let channels = notice.channels.iter();
            channels.map(|channel| mark(notice.order_id, notice.kind, *channel, notice.due_at, notice.set_by))
        });
        Ok(marks.collect())
    }

    async fn effects_read(
        &self,
        conn: &mut PgConnection,
        _partition: i32,
        marks: &[EffectMark],
    ) -> Result<Vec<(EffectMark, Effect)>, sqlx::Error> {
        let orders: BTreeSet<i64> = marks.iter().map(|mark| mark.key).collect();
        let orders = store::load_notices(conn, &Vec::from_iter(orders)).await?;
        let customers: BTreeSet<&str> = orders
            .values()
            .flat_map(|state| state.notices.values())
            .map(|notice| notice.customer_id.as_str())
            .collect();
        let contacts = store::load_contacts(conn, &Vec::from_iter(customers)).await?;
        let effect = |mark: &EffectMark| Some((*mark, effect(&orders, &contacts, mark)?));
        Ok(marks.iter().filter_map(effect).collect())
    }

    async fn perform(&self, effect: &Effect, attempt: Try) -> Outcome<Input> {
        let Due { order_id, kind, channel, .. } = effect.due;
        let answer = |report| Outcome::Answer(Input::Answer(domain::Input::Answer { order_id, kind, channel, report }));
        if let Some(report) = obstacle(&effect.due, attempt.now) {
            return answer(report);
        }
        let Some(mailer) = &self.mailer else {
            return Outcome::Unreachable { message: "this process folds and sends nothing".to_owned() };
        };
        let Address(to) = effect.to.as_ref().expect("a channel that can be reached has an address");
        match mailer.send(Parcel { order_id, kind, channel, letter: &effect.letter, to }).await {
            Verdict::Final(report) => match failpoint::reach("N3").await {
                Ok(()) => answer(report),
                Err(error) => Outcome::Unreachable { message: error.to_string() },
            },
            Verdict::Failed { code, message } => Outcome::Failed { code, message },
            Verdict::Unreachable(message) => Outcome::Unreachable { message },
        }
    }
}

impl States {
    fn decide(&self, input: &domain::Input) -> Result<Option<NotificationEvent>, domain::Refusal> {
        let unknown = State::default();
        domain::decide(self.orders.get(&input.order_id()).unwrap_or(&unknown), input)
    }

    fn among(&self, keys: &BTreeSet<(OrderId, NoticeKind)>) -> impl Iterator<Item = ((OrderId, NoticeKind), &Notice)> {
        keys.iter().filter_map(|(order_id, kind)| {
            let notice = self.orders.get(order_id)?.notices.get(kind)?;
            Some(((*order_id, *kind), notice))
        })
    }
}

fn kind_of(event: &NotificationEvent) -> NoticeKind {
    match event {
        NotificationEvent::NotificationScheduled(event) => event.kind,
        NotificationEvent::NotificationSent(event) => event.kind,
        NotificationEvent::NotificationFailed(event) => event.kind,
        NotificationEvent::NotificationSkipped(event) => event.kind,
    }
}

/// What a try of this effect needs; `None` when nobody asks for it any more.
fn effect(
    orders: &BTreeMap<OrderId, State>,
    contacts: &BTreeMap<String, Contact>,
    mark: &EffectMark,
) -> Option<Effect> {
    let order_id = OrderId(mark.key);
    let (kind, channel) = effect_of(mark.kind)?;
    let state = orders.get(&order_id)?;
    let notice = state.notices.get(&kind)?;
    let Fate::Scheduled { letter, due_at, set_by, channels } = &notice.fate else { return None };
    if *set_by != mark.set_by || channels.get(&channel) != Some(&Delivery::Pending) {
        return None;
    }
    let contact = contacts.get(&notice.customer_id);
    let reachable = contact.map(Contact::reachable).unwrap_or_default();
    let due = Due { order_id, kind, channel, due_at: *due_at, settled: state.is_settled(), reachable };
    let to = contact.and_then(|contact| contact.address(channel)).map(|to| Address(to.to_owned()));
    Some(Effect { due, letter: letter.clone(), to })
}
