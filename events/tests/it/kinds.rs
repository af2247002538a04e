//! Every record type of the log behind one face, so that a test says something about all of them.
//!
//! JSON is the common form: it shows every field, and a struct equals another exactly when their JSON does.

use events::codec::{Codec, DecodeError};
use events::inventory::{self, InventoryCommand, InventoryEvent};
use events::notification::{self, NotificationEvent};
use events::order::{self, OrderCommand, OrderEvent};
use events::payment::{self, PaymentCommand, PaymentEvent};
use events::record::Record;
use serde_json::Value;

/// One record type on its topic.
pub(crate) struct Kind {
    pub(crate) topic: &'static str,
    pub(crate) full_name: &'static str,
    /// JSON to bytes; the text of the error names the field.
    pub(crate) encode: fn(&Codec, &Value) -> Result<Vec<u8>, String>,
}

/// A type's full name and a record of it as JSON.
pub(crate) type Decoded = (&'static str, Value);

/// What the topic of a [`Kind`] does with bytes.
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) types: &'static [&'static str],
    /// Bytes to type name and JSON.
    pub(crate) decode: fn(&Codec, &[u8]) -> Result<Decoded, DecodeError>,
}

macro_rules! kinds {
    ($($module:ident :: $topic:ident { $($name:ident),+ $(,)? })+) => {
        /// Every type of the log.
        pub(crate) const KINDS: &[Kind] = &[$($(Kind {
            topic: $topic::TOPIC,
            full_name: <$module::$name as Record>::TYPE,
            encode: |codec, json| {
                let record: $module::$name = serde_json::from_value(json.clone()).map_err(|error| error.to_string())?;
                let record = $topic::from(record);
                let value = record.encode(codec).map_err(|error| error.to_string())?;
                assert_eq!($topic::decode(codec, &value).as_ref(), Ok(&record), "reads back");
                Ok(value)
            },
        }),+),+];

        /// Every topic of the log that holds values of ours.
        pub(crate) const TOPICS: &[Topic] = &[$(Topic {
            name: $topic::TOPIC,
            types: $topic::TYPES,
            decode: |codec, value| {
                let record = $topic::decode(codec, value)?;
                assert!(record.type_name().ends_with(&format!(".{}", record.short_name())));
                Ok((record.type_name(), record.to_json()))
            },
        }),+];
    };
}

kinds! {
    order::OrderCommand { PlaceOrder, CancelOrder }
    order::OrderEvent {
        OrderPlaced, OrderRejected, OrderConfirmed, OrderCancelled, OrderExpired, CommandRefused,
    }
    inventory::InventoryCommand { ListProduct, RepriceProduct, DelistProduct, ReceiveStock, AdjustStock }
    inventory::InventoryEvent {
        ProductListed, ProductRepriced, ProductDelisted, StockReceived, StockAdjusted, StockReserved, StockRejected,
        StockReleased, StockSold, CommandRefused,
    }
    payment::PaymentCommand { RecordGatewayResult, RefundPayment }
    payment::PaymentEvent {
        PaymentRequested, PaymentCaptured, PaymentDeclined, PaymentFailed, PaymentCancelRequested, PaymentCancelled,
        RefundRequested, PaymentRefunded, RefundFailed, CommandRefused,
    }
    notification::NotificationEvent {
        NotificationScheduled, NotificationSent, NotificationFailed, NotificationSkipped,
    }
}

/// The topic of this name.
pub(crate) fn topic(name: &str) -> &'static Topic {
    TOPICS.iter().find(|topic| topic.name == name).expect("a topic of ours")
}

/// The type of this name on this topic.
pub(crate) fn kind(topic: &str, full_name: &str) -> &'static Kind {
    let mut kinds = KINDS.iter();
    kinds.find(|kind| (kind.topic, kind.full_name) == (topic, full_name)).expect("a type of ours")
}
