//! What a batch does here: which topics are read, which reservations and products are loaded and locked, what is
//! decided and saved.
//!
//! The rules are [`crate::domain`]'s, the statements [`crate::store`]'s, the batch itself the engine's. This service
//! calls nobody and waits for no time, so it has neither effects nor timers.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use engine::service::{
    About, Decoded, Description, Failure, Homes, InputTopic, Outcome, Service, Table, TopicKind, Try,
};
use events::codec::{Codec, DecodeError, EncodeError};
use events::id::{OrderId, ProductId};
use events::inventory::{InventoryCommand, InventoryEvent, Subject};
use events::order::{OrderEvent, PricedLine};
use events::record::Recorded;
use events::time::Timestamp;
use sqlx::PgConnection;

use crate::domain::{self, Input, Reservation, State, Stock};
use crate::{products, store};

/// The fixed facts of this service.
pub const DESCRIPTION: Description = Description {
    name: "inventory-svc",
    number: 2,
    inputs: &[
        InputTopic { name: InventoryCommand::TOPIC, kind: TopicKind::Commands },
        InputTopic { name: OrderEvent::TOPIC, kind: TopicKind::Events },
    ],
    events_topic: InventoryEvent::TOPIC,
    read_model: None,
    projection_version: 1,
    tables: &[
        Table { name: "products", key: "product_id", read_model: false },
        Table { name: "reservations", key: "order_id", read_model: false },
    ],
};

/// The inventory service, as the engine runs it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inventory;

/// The part of the warehouse that a batch touches: as loaded and locked, then as every event leaves it.
#[derive(Debug, Default)]
pub struct States {
    state: State,
    /// Stock as it was loaded: what is saved is the difference.
    loaded: BTreeMap<ProductId, Stock>,
    /// They had no row when the batch began.
    new_orders: BTreeSet<OrderId>,
    /// They have a row that is to be changed.
    changed_orders: BTreeSet<OrderId>,
    changed_listings: BTreeSet<ProductId>,
}

impl Service for Inventory {
    type Input = Input;
    type Event = InventoryEvent;
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
            InventoryCommand::TOPIC => {
                let command = InventoryCommand::decode(codec, value)?;
                Ok(Some(Decoded {
                    key: command.product_id().0,
                    command: Some(products::command_ref(&command)),
                    input: Input::Command(command),
                }))
            }
            OrderEvent::TOPIC => {
                let event = OrderEvent::decode(codec, value)?;
                let key = event.order_id().0;
                Ok(Input::from_order(event).map(|input| Decoded { input, key, command: None }))
            }
            other => unreachable!("{other} is no input of this service"),
        }
    }

    fn kind(&self, topic: &str, _type_name: &str) -> Option<&'static str> {
        Some(if topic == InventoryCommand::TOPIC { "product" } else { "order" })
    }

    fn decode_own(&self, codec: &Codec, value: &[u8]) -> Result<InventoryEvent, DecodeError> {
        InventoryEvent::decode(codec, value)
    }

    fn encode(&self, codec: &Codec, event: &InventoryEvent) -> Result<Vec<u8>, EncodeError> {
        event.encode(codec)
    }

    fn about(&self, event: &InventoryEvent) -> About {
        let subject = event.subject();
        About {
            type_name: event.type_name(),
            key: subject.number(),
            correlation: match subject {
                Subject::Order(order_id) => Some(order_id.0),
                Subject::Product(_) => None,
            },
            command: event.command_ref(),
            refused: match event {
                InventoryEvent::CommandRefused(event) => Some(event.reason.clone()),
                InventoryEvent::ProductListed(_)
                | InventoryEvent::ProductRepriced(_)
                | InventoryEvent::ProductDelisted(_)
                | InventoryEvent::StockReceived(_)
                | InventoryEvent::StockAdjusted(_)
                | InventoryEvent::StockReserved(_)
                | InventoryEvent::StockRejected(_)
                | InventoryEvent::StockReleased(_)
                | InventoryEvent::StockSold(_) => None,
            },
        }
    }

    /// The reservations first, which tell the products of a sale or release; then all products under one lock.
    async fn load(
        &self,
        conn: &mut PgConnection,
        inputs: &[&Input],
        events: &[&InventoryEvent],
    ) -> Result<States, sqlx::Error> {
        let orders: BTreeSet<i64> = inputs.iter().filter_map(|input| input.order_id()).map(|id| id.0).collect();
        let mut products = BTreeSet::new();
        inputs.iter().for_each(|input| touched_by_input(input, &mut products));
        events.iter().for_each(|event| touched_by_event(event, &mut products));
        let mut states = States::default();
        if !orders.is_empty() {
            states.state.reservations = store::load_reservations(conn, &Vec::from_iter(orders)).await?;
        }
        for reservation in states.state.reservations.values() {
            match reservation {
                Reservation::Reserved { lines, .. } => products.extend(of_lines(lines)),
                Reservation::None | Reservation::Rejected | Reservation::Released | Reservation::Sold => {}
            }
        }
        if !products.is_empty() {
            states.state.products = store::lock_products(conn, &Vec::from_iter(products)).await?;
        }
        states.loaded = states.state.products.iter().map(|(id, product)| (*id, product.stock)).collect();
        Ok(states)
    }

    fn decide(&self, states: &States, input: &Input, _now: Timestamp) -> Result<Option<InventoryEvent>, Failure> {
        domain::judge(&states.state, input)
            .map_err(|refusal| Failure { code: refusal.code(), message: refusal.to_string() })
    }

    /// Orders of any partition want products of any other.
    fn locks_shared_rows(&self) -> bool {
        true
    }

    fn refuse(&self, _states: &States, input: &Input, reason: &str, _operator: &str) -> Option<InventoryEvent> {
        domain::refused(input, reason)
    }

    fn may_be_discarded(&self, type_name: &str) -> bool {
        !OrderEvent::ends_order(type_name)
    }

    fn evolve(&self, states: &mut States, event: &Recorded<InventoryEvent>) {
        states.state = domain::evolve(std::mem::take(&mut states.state), event);
        match &event.event {
            InventoryEvent::ProductListed(event) => _ = states.changed_listings.insert(event.product_id),
            InventoryEvent::ProductRepriced(event) => _ = states.changed_listings.insert(event.product_id),
            InventoryEvent::ProductDelisted(event) => _ = states.changed_listings.insert(event.product_id),
            // An order is first heard of by one of these. A fold loads no reservations, so it knows by nothing else.
            InventoryEvent::StockReserved(event) => _ = states.new_orders.insert(event.order_id),
            InventoryEvent::StockRejected(event) => _ = states.new_orders.insert(event.order_id),
            InventoryEvent::StockReleased(event) => states.ended(event.order_id),
            InventoryEvent::StockSold(event) => states.ended(event.order_id),
            // What they change is the difference to what was loaded.
            InventoryEvent::StockReceived(_) | InventoryEvent::StockAdjusted(_) => {}
            InventoryEvent::CommandRefused(_) => {}
        }
    }

    async fn save(&self, conn: &mut PgConnection, homes: Homes, states: &States) -> Result<(), sqlx::Error> {
        if !states.new_orders.is_empty() {
            store::insert_reservations(conn, homes, &states.among(&states.new_orders)).await?;
        }
        if !states.changed_orders.is_empty() {
            store::end_reservations(conn, &states.among(&states.changed_orders)).await?;
        }
        if !states.changed_listings.is_empty() {
            let products = &states.state.products;
            let changed = |id: &ProductId| products.get_key_value(id).map(|(id, product)| (*id, &product.listing));
            let changed = states.changed_listings.iter().filter_map(changed).collect();
            store::save_listings(conn, &changed).await?;
        }
        let (known, first) = states.added();
        if !known.is_empty() {
            store::add_stock(conn, &known).await?;
        }
        if !first.is_empty() {
            store::add_first_stock(conn, &first).await?;
        }
        Ok(())
    }

    async fn perform(&self, effect: &Infallible, _attempt: Try) -> Outcome<Input> {
        match *effect {}
    }
}

impl States {
    /// A reservation that this batch made is written once, as it is in the end.
    fn ended(&mut self, order_id: OrderId) {
        if !self.new_orders.contains(&order_id) {
            self.changed_orders.insert(order_id);
        }
    }

    fn among(&self, order_ids: &BTreeSet<OrderId>) -> BTreeMap<OrderId, &Reservation> {
        order_ids.iter().map(|order_id| (*order_id, self.state.reservation(*order_id))).collect()
    }

    /// What this batch adds to the stock of each product: to those that were locked, and to those that had no row.
    fn added(&self) -> (BTreeMap<ProductId, Stock>, BTreeMap<ProductId, Stock>) {
        let added = |(id, product): (&ProductId, &domain::Product)| {
            let before = self.loaded.get(id).copied().unwrap_or_default();
            (*id, product.stock.since(&before))
        };
        let added = self.state.products.iter().map(added).filter(|(_, stock)| *stock != Stock::default());
        added.partition(|(id, _)| self.loaded.contains_key(id))
    }
}

fn of_lines(lines: &[PricedLine]) -> impl Iterator<Item = i64> {
    lines.iter().map(|line| line.product_id.0)
}

fn touched_by_input(input: &Input, products: &mut BTreeSet<i64>) {
    match input {
        Input::OrderPlaced(order) => products.extend(of_lines(&order.lines)),
        Input::Command(command) => _ = products.insert(command.product_id().0),
        // Their reservation tells.
        Input::OrderConfirmed(_) | Input::OrderGivenUp(_) => {}
    }
}

fn touched_by_event(event: &InventoryEvent, products: &mut BTreeSet<i64>) {
    match event {
        InventoryEvent::StockReserved(event) => products.extend(of_lines(&event.lines)),
        InventoryEvent::StockReleased(event) => products.extend(of_lines(&event.lines)),
        InventoryEvent::StockSold(event) => products.extend(of_lines(&event.lines)),
        InventoryEvent::StockRejected(_) => {}
        InventoryEvent::ProductListed(_)
        | InventoryEvent::ProductRepriced(_)
        | InventoryEvent::ProductDelisted(_)
        | InventoryEvent::StockReceived(_)
        | InventoryEvent::StockAdjusted(_)
        | InventoryEvent::CommandRefused(_) => _ = products.insert(event.subject().number()),
    }
}
