//! What the log says of one order: its records of order.events, read from Kafka.
//!
//! Which sequences they have is known from the projection, so that only a few records are read, not a partition. Blocking:
//! call it from a blocking thread. Nothing is folded or written here.

use anyhow::Context;
use engine::kafka::Kafka;
use engine::own_log::{Reader, watermarks};
use engine::record::Record;
use events::codec::Codec;
use events::envelope;
use events::id::OrderId;
use events::order::OrderEvent;
use events::partition::partition_of;

/// An order has this many events at most that are shown; only refusals can be so many.
pub const EVENTS_MAX: i64 = 200;
/// Records between two wanted ones that are read over; for more a new reader costs less.
const NEAR: i64 = 500;

/// The records of an order with these sequences, in their order. What Kafka does not have yet is left out.
///
/// # Errors
/// When Kafka does not answer, or a record cannot be decoded.
pub fn read(
    kafka: &Kafka,
    codec: &Codec,
    order_id: OrderId,
    mut sequences: Vec<i64>,
) -> anyhow::Result<Vec<(Record, OrderEvent)>> {
    sequences.sort_unstable();
    sequences.dedup();
    let key = order_id.to_string().into_bytes();
    let place = (kafka.topic(OrderEvent::TOPIC), partition_of(&key, kafka.partitions));
    let (low, high) = watermarks(kafka, std::slice::from_ref(&place))?[0];
    let mut reader: Option<(Reader, i64)> = None;
    let mut found = Vec::new();
    for wanted in sequences {
        let mut at = match reader.take() {
            Some((reader, last)) if wanted - last <= NEAR => reader,
            // Every sequence has a record of its own, and repeats only add to them: it cannot lie before this offset.
            Some(_) | None => Reader::open(kafka, &[(place.clone(), low.max(wanted - 1), high)])?,
        };
        while let Some(record) = at.next()? {
            let sequence = envelope::sequence(&record.headers);
            if sequence == Some(wanted) && record.key.as_deref() == Some(&key[..]) {
                let event = OrderEvent::decode(codec, record.value.as_deref().unwrap_or_default());
                let event = event.with_context(|| format!("sequence {wanted} of {}/{}", place.0, place.1))?;
                found.push((record, event));
                break;
            }
        }
        reader = Some((at, wanted));
    }
    Ok(found)
}
