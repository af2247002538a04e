//! What a batch does here: which topics are read, which payments are loaded, what is decided, saved and called.
//!
//! The rules are [`crate::domain`]'s, the statements [`crate::store`]'s, the calls [`crate::gateway`]'s, the batch itself
//! the engine's.

use std::collections::{BTreeMap, BTreeSet};

use engine::service::{
    About, Decoded, Description, EffectMark, Failure, Homes, InputTopic, Outcome, Service, Table, TopicKind, Try,
};
use events::codec::{Codec, DecodeError, EncodeError};
use events::id::OrderId;
use events::inventory::{InventoryEvent, StockReserved};
use events::order::OrderEvent;
use events::payment::{PaymentCommand, PaymentEvent};
use events::record::Recorded;
use events::time::Timestamp;
use sqlx::PgConnection;

use crate::domain::{self, Input as Rule, Payment, State, Terms};
use crate::gateway::{self, Gateway, Request};
use crate::store;

/// The fixed facts of this service.
pub const DESCRIPTION: Description = Description {
    name: "payment-svc",
    number: 3,
    inputs: &[
        InputTopic { name: PaymentCommand::TOPIC, kind: TopicKind::Commands },
        InputTopic { name: OrderEvent::TOPIC, kind: TopicKind::Events },
        InputTopic { name: InventoryEvent::TOPIC, kind: TopicKind::Events },
    ],
    events_topic: PaymentEvent::TOPIC,
    read_model: None,
    projection_version: 1,
    tables: &[Table { name: "payments", key: "order_id", read_model: false }],
};

/// The payment service, as the engine runs it.
#[derive(Debug)]
pub struct Payments {
    /// Whom it calls.
    pub gateway: Gateway,
}

/// What a record or an answer means here.
#[derive(Debug)]
pub enum Input {
    /// The stock is set aside; the time of the decision is added when it is decided.
    Reserved {
        /// Whose money.
        payment: Payment,
        /// How it is to be charged.
        terms: Terms,
    },
    /// Anything else that may change a payment.
    Payment(Rule),
}

/// The payments of a batch: as loaded, then as every event leaves them.
#[derive(Debug, Default)]
pub struct States {
    payments: BTreeMap<OrderId, State>,
    /// They had no row when the batch began.
    new: BTreeSet<OrderId>,
    /// They have a row that is to be changed.
    changed: BTreeSet<OrderId>,
}

impl States {
    fn get(&self, order_id: OrderId) -> &State {
        self.payments.get(&order_id).unwrap_or(&State::Unknown)
    }

    fn among(&self, order_ids: &BTreeSet<OrderId>) -> Vec<&State> {
        order_ids.iter().map(|order_id| self.get(*order_id)).collect()
    }
}

impl Input {
    fn order_id(&self) -> OrderId {
        match self {
            Self::Reserved { payment, .. } => payment.order_id,
            Self::Payment(input) => input.order_id(),
        }
    }
}

impl Payments {
    fn reserved(&self, event: StockReserved) -> Input {
        let pay_url = self.gateway.pay_url(event.order_id, &event.payment_method);
        Input::Reserved {
            payment: Payment { order_id: event.order_id, customer_id: event.customer_id, total: event.total },
            terms: Terms { payment_method: event.payment_method, pay_by: event.pay_by, pay_url },
        }
    }
}

impl Service for Payments {
    type Input = Input;
    type Event = PaymentEvent;
    type States = States;
    type Effect = Request;

    fn describe(&self) -> Description {
        DESCRIPTION
    }

    fn decode(
        &self,
        codec: &Codec,
        topic: &str,
        value: &[u8],
        _at: Timestamp,
    ) -> Result<Option<Decoded<Input>>, DecodeError> {
        match topic {
            PaymentCommand::TOPIC => PaymentCommand::decode(codec, value).map(command).map(Some),
            OrderEvent::TOPIC => {
                let event = OrderEvent::decode(codec, value)?;
                let key = event.order_id().0;
                let input = Rule::from_order(event).map(Input::Payment);
                Ok(input.map(|input| Decoded { input, key, command: None }))
            }
            InventoryEvent::TOPIC => match InventoryEvent::decode(codec, value)? {
                InventoryEvent::StockReserved(event) => {
                    let key = event.order_id.0;
                    Ok(Some(Decoded { input: self.reserved(event), key, command: None }))
                }
                InventoryEvent::ProductListed(_)
                | InventoryEvent::ProductRepriced(_)
                | InventoryEvent::ProductDelisted(_)
                | InventoryEvent::StockReceived(_)
                | InventoryEvent::StockAdjusted(_)
                | InventoryEvent::StockRejected(_)
                | InventoryEvent::StockReleased(_)
                | InventoryEvent::StockSold(_)
                | InventoryEvent::CommandRefused(_) => Ok(None),
            },
            other => unreachable!("{other} is no input of this service"),
        }
    }

    fn kind(&self, topic: &str, type_name: &str) -> Option<&'static str> {
        if topic == InventoryEvent::TOPIC { InventoryEvent::kind(type_name) } else { Some("order") }
    }

    fn decode_own(&self, codec: &Codec, value: &[u8]) -> Result<PaymentEvent, DecodeError> {
        PaymentEvent::decode(codec, value)
    }

    fn encode(&self, codec: &Codec, event: &PaymentEvent) -> Result<Vec<u8>, EncodeError> {
        event.encode(codec)
    }

    fn about(&self, event: &PaymentEvent) -> About {
        let key = event.order_id().0;
        About {
            type_name: event.type_name(),
            key,
            correlation: Some(key),
            command: event.command_ref(),
            refused: match event {
                PaymentEvent::CommandRefused(event) => Some(event.reason.clone()),
                PaymentEvent::PaymentRequested(_)
                | PaymentEvent::PaymentCaptured(_)
                | PaymentEvent::PaymentDeclined(_)
                | PaymentEvent::PaymentFailed(_)
                | PaymentEvent::PaymentCancelRequested(_)
                | PaymentEvent::PaymentCancelled(_)
                | PaymentEvent::RefundRequested(_)
                | PaymentEvent::PaymentRefunded(_)
                | PaymentEvent::RefundFailed(_) => None,
            },
        }
    }

    async fn load(
        &self,
        conn: &mut PgConnection,
        inputs: &[&Input],
        events: &[&PaymentEvent],
    ) -> Result<States, sqlx::Error> {
        let mut orders: BTreeSet<i64> = inputs.iter().map(|input| input.order_id().0).collect();
        orders.extend(events.iter().map(|event| event.order_id().0));
        if orders.is_empty() {
            return Ok(States::default());
        }
        let payments = store::load_payments(conn, &Vec::from_iter(orders)).await?;
        Ok(States { payments, ..States::default() })
    }

    fn decide(&self, states: &States, input: &Input, now: Timestamp) -> Result<Option<PaymentEvent>, Failure> {
        let state = states.get(input.order_id());
        let judged = match input {
            Input::Reserved { payment, terms } => {
                let reserved = Rule::Reserved { payment: payment.clone(), terms: terms.clone(), now };
                domain::judge(state, &reserved)
            }
            Input::Payment(input) => domain::judge(state, input),
        };
        judged.map_err(|refusal| Failure { code: refusal.code(), message: refusal.to_string() })
    }

    fn refuse(&self, _states: &States, input: &Input, reason: &str, _operator: &str) -> Option<PaymentEvent> {
        match input {
            Input::Payment(input) => domain::refused(input, reason),
            Input::Reserved { .. } => None,
        }
    }

    fn may_be_discarded(&self, type_name: &str) -> bool {
        !OrderEvent::ends_order(type_name)
    }

    fn evolve(&self, states: &mut States, event: &Recorded<PaymentEvent>) {
        let order_id = event.event.order_id();
        let state = states.payments.entry(order_id).or_default();
        let before = (state.status(), state.call());
        *state = domain::evolve(std::mem::take(state), event);
        // A refused command leaves a payment as it is. Its call must not be told to the engine again: that would make an
        // earlier try look as if it had never been (DESIGN §9, H10).
        if (state.status(), state.call()) == before {
            return;
        }
        if before.0.is_none() {
            states.new.insert(order_id);
        } else if !states.new.contains(&order_id) {
            states.changed.insert(order_id);
        }
    }

    async fn save(&self, conn: &mut PgConnection, homes: Homes, states: &States) -> Result<(), sqlx::Error> {
        if !states.new.is_empty() {
            store::insert_payments(conn, homes, &states.among(&states.new)).await?;
        }
        if !states.changed.is_empty() {
            store::update_payments(conn, &states.among(&states.changed)).await?;
        }
        Ok(())
    }

    fn effects_set(&self, states: &States) -> Vec<EffectMark> {
        let mark = |order_id: &OrderId| {
            let (call, set_by) = states.get(*order_id).call()?;
            Some(EffectMark { key: order_id.0, kind: call.as_str(), set_by, not_before: None })
        };
        states.new.union(&states.changed).filter_map(mark).collect()
    }

    async fn effects_due(&self, conn: &mut PgConnection, partition: i32) -> Result<Vec<EffectMark>, sqlx::Error> {
        store::calls(conn, partition).await
    }

    async fn effects_read(
        &self,
        conn: &mut PgConnection,
        _partition: i32,
        marks: &[EffectMark],
    ) -> Result<Vec<(EffectMark, Request)>, sqlx::Error> {
        let orders: Vec<i64> = marks.iter().map(|mark| mark.key).collect();
        let payments = store::load_payments(conn, &orders).await?;
        let request = |mark: &EffectMark| {
            let state = payments.get(&OrderId(mark.key))?;
            let (call, set_by) = state.call()?;
            let asked = call.as_str() == mark.kind && set_by == mark.set_by;
            asked.then(|| gateway::request(state)).flatten().map(|request| (*mark, request))
        };
        Ok(marks.iter().filter_map(request).collect())
    }

    async fn perform(&self, request: &Request, attempt: Try) -> Outcome<Input> {
        self.gateway.perform(request, attempt).await
    }
}

fn command(command: PaymentCommand) -> Decoded<Input> {
    let key = command.order_id().0;
    let (input, command) = match command {
        PaymentCommand::RecordGatewayResult(command) => {
            let reference = command.command_ref();
            (Rule::GatewayResult(command), reference)
        }
        PaymentCommand::RefundPayment(command) => {
            let reference = command.command_ref();
            (Rule::Refund(command), reference)
        }
    };
    Decoded { input: Input::Payment(input), key, command: Some(command) }
}
