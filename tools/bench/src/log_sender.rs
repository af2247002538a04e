//! Starts orders by appending PlaceOrder to Kafka itself, with the engine's producer: all of the system but HTTP.
//!
//! IDs are leased like every other process' (service number 7, in order-svc's database), so no order is ever doubled.

use std::sync::Arc;

use anyhow::Context;
use engine::append::{Appender, NewRecord};
use engine::clock;
use engine::lease::IdIssuer;
use engine::pool::{self, PoolOptions};
use events::codec::Codec;
use events::envelope::Envelope;
use events::id::{CommandId, OrderId};
use events::order::{OrderCommand, OrderLine, PlaceOrder};

use crate::target::{Target, customer};

/// The tools' number among the services (DESIGN §3).
const TOOLS: u8 = 7;
const SOURCE: &str = "orderctl";

/// Appends.
#[derive(Debug)]
pub(crate) struct LogSender {
    appender: Appender,
    ids: IdIssuer,
    codec: Arc<Codec>,
}

impl LogSender {
    /// Leases an instance number and makes the producer.
    ///
    /// # Errors
    /// When order-svc's database is not there or all numbers are taken.
    pub(crate) async fn start(target: &Target) -> anyhow::Result<Self> {
        let pool = pool::connect(&target.order_database, PoolOptions::new("bench", 1)).await?;
        let holder = format!("bench-{}", std::process::id());
        let ids = IdIssuer::start(pool, TOOLS, &holder).await.context("leasing an instance number for IDs")?;
        let appender = Appender::new(Arc::clone(&target.kafka))?;
        Ok(Self { appender, ids, codec: Arc::clone(&target.codec) })
    }

    /// A new order's ID.
    pub(crate) async fn order_id(&self) -> i64 {
        self.ids.issue().await
    }

    /// Appends the command that places an order; done when Kafka gave it an offset.
    ///
    /// # Errors
    /// When Kafka did not confirm it within 5 s.
    pub(crate) async fn place(&self, order: i64, number: usize, lines: Vec<OrderLine>) -> anyhow::Result<()> {
        let command = self.ids.issue().await;
        let record = PlaceOrder {
            order_id: OrderId(order),
            customer_id: customer(number),
            lines,
            payment_method: "pm_ok".to_owned(),
            expected_total: None,
            command_id: CommandId(command),
            caller: None,
            key_hash: None,
            fingerprint: None,
        };
        let key = order.to_string();
        let trace = format!("00-{:032x}-{:016x}-00", rand::random::<u128>(), rand::random::<u64>());
        let envelope = Envelope {
            id: command,
            type_name: "orderlog.order.PlaceOrder",
            source: SOURCE,
            subject: &key,
            time: clock::wall(),
            sequence: None,
            correlation: None,
            causation: None,
            cause: None,
            traceparent: Some(&trace),
            avro: true,
        };
        let headers = envelope.headers();
        let value = OrderCommand::from(record).encode(&self.codec)?;
        self.appender.append(NewRecord { topic: OrderCommand::TOPIC, key, headers, value }).await?;
        Ok(())
    }
}
