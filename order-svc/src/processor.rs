//! What a batch does here: which topics are read, which orders and prices are loaded, what is decided and saved.
//!
//! The rules are [`crate::domain`]'s, the statements [`crate::store`]'s, the batch itself the engine's. This service
//! calls nobody, so it has no effects.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use engine::service::{
    About, Decoded, Description, DueTimer, Failure, Homes, InputTopic, Outcome, Service, Table, TopicKind, Try, Window,
};
use engine::{clock, mutant};
use events::codec::{Codec, DecodeError, EncodeError};
use events::id::{OrderId, ProductId};
use events::inventory::InventoryEvent;
use events::money::Money;
use events::order::{OrderCommand, OrderEvent, PlaceOrder};
use events::payment::PaymentEvent;
use events::record::{Record, Recorded, SetBy};
use events::time::Timestamp;
use sqlx::PgConnection;

use crate::catalogue::{self, Fact, Product};
use crate::domain::{self, State};
use crate::store;

/// The fixed facts of this service.
pub const DESCRIPTION: Description = Description {
    name: "order-svc",
    number: 1,
    inputs: &[
        InputTopic { name: OrderCommand::TOPIC, kind: TopicKind::Commands },
        InputTopic { name: InventoryEvent::TOPIC, kind: TopicKind::Events },
        InputTopic { name: PaymentEvent::TOPIC, kind: TopicKind::Events },
    ],
    events_topic: OrderEvent::TOPIC,
    read_model: Some(InventoryEvent::TOPIC),
    projection_version: 1,
    tables: &[
        Table { name: "orders", key: "order_id", read_model: false },
        Table { name: "catalogue", key: "product_id", read_model: true },
    ],
};

/// The order service, as the engine runs it.
#[derive(Debug, Clone, Copy)]
pub struct Orders {
    /// An order that is not paid within this time expires.
    pub pay_within: Duration,
}

/// What a record, or a due timer, means here.
#[derive(Debug)]
pub enum Input {
    /// An order to price and place; its facts are added when it is decided.
    Place(PlaceOrder),
    /// Anything else that may change an order.
    Order(domain::Input),
    /// Something that changes the catalogue.
    Fact(Fact),
}

/// The orders and products of a batch: as loaded, then as every event leaves them.
#[derive(Debug, Default)]
pub struct States {
    orders: BTreeMap<OrderId, State>,
    products: BTreeMap<ProductId, Product>,
    /// They had no row when the batch began.
    new_orders: BTreeSet<OrderId>,
    /// They have a row that is to be changed.
    changed_orders: BTreeSet<OrderId>,
    changed_products: BTreeSet<ProductId>,
}

impl Service for Orders {
    type Input = Input;
    type Event = OrderEvent;
    type States = States;
    type Effect = Infallible;

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
            OrderCommand::TOPIC => OrderCommand::decode(codec, value).and_then(command).map(Some),
            InventoryEvent::TOPIC => Ok(of_inventory(InventoryEvent::decode(codec, value)?)),
            PaymentEvent::TOPIC => {
                let event = PaymentEvent::decode(codec, value)?;
                let key = event.order_id().0;
                let input = domain::Input::from_payment(&event).map(Input::Order);
                Ok(input.map(|input| Decoded { input, key, command: None }))
            }
            other => unreachable!("{other} is no input of this service"),
        }
    }

    fn kind(&self, topic: &str, type_name: &str) -> Option<&'static str> {
        if topic == InventoryEvent::TOPIC { InventoryEvent::kind(type_name) } else { Some("order") }
    }

    fn decode_own(&self, codec: &Codec, value: &[u8]) -> Result<OrderEvent, DecodeError> {
        OrderEvent::decode(codec, value)
    }

    fn encode(&self, codec: &Codec, event: &OrderEvent) -> Result<Vec<u8>, EncodeError> {
        event.encode(codec)
    }

    fn about(&self, event: &OrderEvent) -> About {
        let key = event.order_id().0;
        About {
            type_name: event.type_name(),
            key,
            correlation: Some(key),
            command: event.command_ref(),
            refused: match event {
                OrderEvent::OrderRejected(event) => Some(event.reason.to_string()),
                OrderEvent::CommandRefused(event) => Some(event.reason.clone()),
                OrderEvent::OrderPlaced(_)
                | OrderEvent::OrderConfirmed(_)
                | OrderEvent::OrderCancelled(_)
                | OrderEvent::OrderExpired(_) => None,
            },
        }
    }

    async fn load(
        &self,
        conn: &mut PgConnection,
        inputs: &[&Input],
        events: &[&OrderEvent],
    ) -> Result<States, sqlx::Error> {
        let (mut orders, mut products) = (BTreeSet::new(), BTreeSet::new());
        orders.extend(events.iter().map(|event| event.order_id().0));
        for input in inputs {
            match input {
                Input::Place(command) => {
                    orders.insert(command.order_id.0);
                    products.extend(command.lines.iter().map(|line| line.product_id.0));
                }
                Input::Order(input) => {
                    orders.insert(input.order_id().0);
                }
                Input::Fact(fact) => {
                    products.insert(fact.product_id().0);
                }
            }
        }
        let mut states = States::default();
        if !orders.is_empty() {
            states.orders = store::load_orders(conn, &Vec::from_iter(orders)).await?;
        }
        if !products.is_empty() {
            states.products = store::load_products(conn, &Vec::from_iter(products)).await?;
        }
        Ok(states)
    }

    fn decide(&self, states: &States, input: &Input, now: Timestamp) -> Result<Option<OrderEvent>, Failure> {
        let judged = match input {
            Input::Place(command) => {
                let placing = domain::Input::Place {
                    command: command.clone(),
                    prices: states.prices(command),
                    pay_by: now.plus(self.pay_within),
                };
                domain::judge(states.order(command.order_id), &placing)
            }
            Input::Order(input) => domain::judge(states.order(input.order_id()), input),
            Input::Fact(_) => Ok(None),
        };
        judged.map_err(|refusal| Failure { code: refusal.code(), message: refusal.to_string() })
    }

    fn refuse(&self, states: &States, input: &Input, reason: &str, operator: &str) -> Option<OrderEvent> {
        match input {
            Input::Order(input) => domain::refused(input, reason),
            // An order that was accepted must come to an end of its own.
            Input::Place(command) => Some(domain::given_up(states.order(command.order_id), command, reason, operator)),
            Input::Fact(_) => None,
        }
    }

    fn evolve(&self, states: &mut States, event: &Recorded<OrderEvent>) {
        let late = mutant::is("clock-in-evolve").then(|| Recorded { at: clock::wall(), ..event.clone() });
        let event = late.as_ref().unwrap_or(event);
        let order_id = event.event.order_id();
        let state = states.orders.entry(order_id).or_default();
        let version = state.version();
        *state = domain::evolve(std::mem::take(state), event);
        if state.version() == version {
            return;
        }
        if version.is_none() {
            states.new_orders.insert(order_id);
        } else if !states.new_orders.contains(&order_id) {
            states.changed_orders.insert(order_id);
        }
    }

    fn observe(&self, states: &mut States, fact: &Input) {
        let Input::Fact(fact) = fact else { return };
        let known = states.products.remove(&fact.product_id());
        if let Some(product) = catalogue::observe(known, fact) {
            states.changed_products.insert(product.product_id);
            states.products.insert(product.product_id, product);
        }
    }

    async fn save(&self, conn: &mut PgConnection, homes: Homes, states: &States) -> Result<(), sqlx::Error> {
        if !states.new_orders.is_empty() {
            store::insert_orders(conn, homes, &states.among(&states.new_orders)).await?;
        }
        if !states.changed_orders.is_empty() {
            store::update_orders(conn, &states.among(&states.changed_orders)).await?;
        }
        if !states.changed_products.is_empty() {
            let changed = |id: &ProductId| states.products.get_key_value(id).map(|(id, product)| (*id, product));
            let products = states.changed_products.iter().filter_map(changed).collect();
            store::save_products(conn, &products).await?;
        }
        Ok(())
    }

    async fn due_timers(
        &self,
        conn: &mut PgConnection,
        partition: i32,
        window: Window,
        resting: &[i64],
    ) -> Result<Vec<DueTimer<Input>>, sqlx::Error> {
        let due = store::due_timers(conn, partition, window, resting).await?;
        let timer = |(order_id, set_by): (OrderId, SetBy)| {
            let input = Input::Order(domain::Input::PayByPassed(order_id));
            DueTimer { key: order_id.0, input, set_by }
        };
        Ok(due.into_iter().map(timer).collect())
    }

    async fn next_timer(
        &self,
        conn: &mut PgConnection,
        partition: i32,
        resting: &[i64],
    ) -> Result<Option<Timestamp>, sqlx::Error> {
        store::next_timer(conn, partition, resting).await
    }

    fn timers_set(&self, states: &States) -> Vec<(i64, Timestamp)> {
        let moved = states.new_orders.union(&states.changed_orders);
        let timer = |order_id: &OrderId| Some((order_id.0, states.order(*order_id).timer()?.due_at));
        moved.filter_map(timer).collect()
    }

    async fn perform(&self, effect: &Infallible, _attempt: Try) -> Outcome<Input> {
        match *effect {}
    }
}

impl States {
    fn order(&self, order_id: OrderId) -> &State {
        self.orders.get(&order_id).unwrap_or(&State::Unknown)
    }

    /// The prices of those products of a command that can be ordered.
    fn prices(&self, command: &PlaceOrder) -> BTreeMap<ProductId, Money> {
        let listed = |product_id| self.products.get(&product_id).filter(|product| product.listed);
        let price = |product: &Product| (product.product_id, product.price);
        command.lines.iter().filter_map(|line| listed(line.product_id).map(price)).collect()
    }

    fn among(&self, order_ids: &BTreeSet<OrderId>) -> BTreeMap<OrderId, &State> {
        order_ids.iter().map(|order_id| (*order_id, self.order(*order_id))).collect()
    }
}

fn command(command: OrderCommand) -> Result<Decoded<Input>, DecodeError> {
    let key = command.order_id().0;
    Ok(match command {
        OrderCommand::PlaceOrder(command) => {
            if let Some(flaw) = domain::flaw(&command) {
                return Err(DecodeError::Damaged { type_name: PlaceOrder::TYPE, reason: flaw.to_owned() });
            }
            Decoded { key, command: Some(command.command_ref()), input: Input::Place(command) }
        }
        OrderCommand::CancelOrder(command) => {
            Decoded { key, command: Some(command.command_ref()), input: Input::Order(domain::Input::Cancel(command)) }
        }
    })
}

fn of_inventory(event: InventoryEvent) -> Option<Decoded<Input>> {
    let key = event.subject().number();
    let input = match domain::Input::from_inventory(&event) {
        Some(input) => Some(Input::Order(input)),
        None => Fact::from_inventory(event).map(Input::Fact),
    };
    input.map(|input| Decoded { input, key, command: None })
}
