//! Every schema a build knows, compiled in: `schemas/<topic>/<Type>.v<N>.avsc`.
//!
//! IDs are not here: the registry gives them (`orderctl schemas push`), `engine` remembers them, [`crate::codec`] uses
//! them. A new version of a type is a new file and a new line in [`SCHEMAS`]; a line never changes or goes.

use std::sync::LazyLock;

use apache_avro::Schema;

/// One stored version of one record type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaDef {
    /// Topic, without prefix.
    pub topic: &'static str,
    /// Full name of the record type, `ce_type` of its records.
    pub full_name: &'static str,
    /// 1, 2, 3 …
    pub version: u32,
    /// The schema as JSON.
    pub text: &'static str,
}

impl SchemaDef {
    /// The registry's subject: `<topic>-<full name>` (TopicRecordNameStrategy).
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{}-{}", self.topic, self.full_name)
    }
}

macro_rules! schemas {
    ($($topic:literal / $namespace:literal { $($name:literal v $version:literal),+ $(,)? })+) => {
        /// Every version of every type, oldest version of a type first.
        pub static SCHEMAS: &[SchemaDef] = &[$($(SchemaDef {
            topic: $topic,
            full_name: concat!($namespace, ".", $name),
            version: $version,
            text: include_str!(concat!("../../schemas/", $topic, "/", $name, ".v", $version, ".avsc")),
        }),+),+];
    };
}

schemas! {
    "order.commands" / "orderlog.order" { "PlaceOrder" v 1, "CancelOrder" v 1 }
    "order.events" / "orderlog.order" {
        "OrderPlaced" v 1, "OrderRejected" v 1, "OrderRejected" v 2, "OrderConfirmed" v 1, "OrderCancelled" v 1,
        "OrderExpired" v 1, "CommandRefused" v 1,
    }
    "inventory.commands" / "orderlog.inventory" {
        "ListProduct" v 1, "RepriceProduct" v 1, "DelistProduct" v 1, "ReceiveStock" v 1, "AdjustStock" v 1,
    }
    "inventory.events" / "orderlog.inventory" {
        "ProductListed" v 1, "ProductRepriced" v 1, "ProductDelisted" v 1, "StockReceived" v 1, "StockAdjusted" v 1,
        "StockReserved" v 1, "StockRejected" v 1, "StockReleased" v 1, "StockSold" v 1, "CommandRefused" v 1,
    }
    "payment.commands" / "orderlog.payment" { "RecordGatewayResult" v 1, "RefundPayment" v 1 }
    "payment.events" / "orderlog.payment" {
        "PaymentRequested" v 1, "PaymentCaptured" v 1, "PaymentDeclined" v 1, "PaymentFailed" v 1,
        "PaymentCancelRequested" v 1, "PaymentCancelled" v 1, "RefundRequested" v 1, "PaymentRefunded" v 1,
        "RefundFailed" v 1, "CommandRefused" v 1,
    }
    "notification.events" / "orderlog.notification" {
        "NotificationScheduled" v 1, "NotificationSent" v 1, "NotificationFailed" v 1, "NotificationSkipped" v 1,
    }
}

static PARSED: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    let parse = |def: &SchemaDef| Schema::parse_str(def.text).expect("a compiled-in schema parses (see the tests)");
    SCHEMAS.iter().map(parse).collect()
});

/// The parsed schema at an index of [`SCHEMAS`].
pub(crate) fn parsed(index: usize) -> &'static Schema {
    &PARSED[index]
}
