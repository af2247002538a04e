//! Reasons and kinds: codes of a closed set, written as text in the log and in JSON, never free text.
//!
//! They are Avro strings rather than Avro enums: a new symbol of an enum is an incompatible schema, a new text is
//! not. A reader that meets a code it does not know takes the record for damaged and says which code it was; so a new
//! code comes with a new version of the schemas that list it, which makes an older reader wait (`schemas/README.md`).

use std::fmt;

/// A text that is not one of the codes expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}")]
pub struct NotACode {
    what: &'static str,
    text: String,
}

impl NotACode {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        // Bounded: the text may come from a damaged record and ends up in headers and logs.
        Self { what, text: text.chars().take(40).collect() }
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident ($what:literal) { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every code of the set, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as the log and JSON write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Parses a code.
            ///
            /// # Errors
            /// [`NotACode`] for a text that is none of [`Self::ALL`].
            pub fn parse(text: &str) -> Result<Self, NotACode> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(NotACode::new($what, text)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotACode;

            fn try_from(text: String) -> Result<Self, NotACode> {
                Self::parse(&text)
            }
        }

        impl From<$name> for &'static str {
            fn from(code: $name) -> Self {
                code.as_str()
            }
        }
    };
}

codes! {
    /// Why a customer cancels (`reason` of a cancel request, `customer_reason` afterwards).
    CustomerReason ("reason to cancel") {
        /// The customer wants something else.
        ChangedMind = "CHANGED_MIND",
        /// The order was not meant.
        OrderedByMistake = "ORDERED_BY_MISTAKE",
        /// Cheaper elsewhere.
        FoundCheaper = "FOUND_CHEAPER",
        /// Anything else, also when nothing was said.
        Other = "OTHER",
    }
}

codes! {
    /// Why an order was cancelled.
    CancelReason ("cancel reason") {
        /// Not all lines could be reserved.
        OutOfStock = "OUT_OF_STOCK",
        /// This payer cannot pay.
        PaymentDeclined = "PAYMENT_DECLINED",
        /// The gateway will never take this request.
        PaymentFailed = "PAYMENT_FAILED",
        /// The customer asked for it.
        Customer = "CUSTOMER",
    }
}

codes! {
    /// Why an order never came to be.
    RejectReason ("reject reason") {
        /// A line names a product that is not in the catalogue.
        UnknownProduct = "UNKNOWN_PRODUCT",
        /// The total is not the one the client expected.
        PriceChanged = "PRICE_CHANGED",
        /// The lines are priced in more than one currency.
        MixedCurrencies = "MIXED_CURRENCIES",
        /// The total leaves 64 bits.
        TotalTooLarge = "TOTAL_TOO_LARGE",
        /// No line, a line without a positive quantity, or a product twice: the edge refuses these, a record that was
        /// appended past it may still hold them.
        InvalidLines = "INVALID_LINES",
        /// The command was a dead letter, and an operator gave it up.
        Discarded = "DISCARDED",
    }
}

codes! {
    /// Why an operator adjusts stock.
    AdjustReason ("adjustment reason") {
        /// Broken or spoiled.
        Damaged = "DAMAGED",
        /// Missing.
        Lost = "LOST",
        /// Turned up.
        Found = "FOUND",
        /// Counted again.
        Recount = "RECOUNT",
        /// Anything else.
        Other = "OTHER",
    }
}

codes! {
    /// Why a confirmed order is refunded by an operator.
    OperatorRefundReason ("refund reason") {
        /// The customer asked.
        RequestedByCustomer = "REQUESTED_BY_CUSTOMER",
        /// Ordered twice.
        Duplicate = "DUPLICATE",
        /// The payer was not the owner.
        Fraud = "FRAUD",
        /// Anything else, also when nothing was said.
        Other = "OTHER",
    }
}

codes! {
    /// Why captured money goes back.
    RefundReason ("refund reason") {
        /// The order was cancelled.
        OrderCancelled = "ORDER_CANCELLED",
        /// The order expired.
        OrderExpired = "ORDER_EXPIRED",
        /// An operator: the customer asked.
        RequestedByCustomer = "REQUESTED_BY_CUSTOMER",
        /// An operator: ordered twice.
        Duplicate = "DUPLICATE",
        /// An operator: the payer was not the owner.
        Fraud = "FRAUD",
        /// An operator: anything else.
        Other = "OTHER",
    }
}

impl From<OperatorRefundReason> for RefundReason {
    fn from(reason: OperatorRefundReason) -> Self {
        match reason {
            OperatorRefundReason::RequestedByCustomer => Self::RequestedByCustomer,
            OperatorRefundReason::Duplicate => Self::Duplicate,
            OperatorRefundReason::Fraud => Self::Fraud,
            OperatorRefundReason::Other => Self::Other,
        }
    }
}

codes! {
    /// Why a charge is given up.
    GiveUpReason ("reason to give up a charge") {
        /// The order was cancelled.
        OrderCancelled = "ORDER_CANCELLED",
        /// The order expired.
        OrderExpired = "ORDER_EXPIRED",
        /// `pay_by` passed before the charge was made.
        TooLate = "TOO_LATE",
    }
}

codes! {
    /// What the gateway says finally about a charge or a refund.
    GatewayResult ("gateway result") {
        /// Money taken.
        Captured = "CAPTURED",
        /// This payer cannot.
        Declined = "DECLINED",
        /// The gateway will never take this request.
        Failed = "FAILED",
        /// The charge was given up; no money was or will be taken.
        Cancelled = "CANCELLED",
        /// Money given back.
        Refunded = "REFUNDED",
    }
}

codes! {
    /// What a notice is about.
    NoticeKind ("notice kind") {
        /// The order is confirmed.
        OrderConfirmed = "ORDER_CONFIRMED",
        /// The order was cancelled.
        OrderCancelled = "ORDER_CANCELLED",
        /// The order was not paid in time.
        OrderExpired = "ORDER_EXPIRED",
        /// The payment is still missing half-way to `pay_by`.
        PaymentReminder = "PAYMENT_REMINDER",
        /// Money went back.
        PaymentRefunded = "PAYMENT_REFUNDED",
    }
}

codes! {
    /// How a notice reaches its reader.
    Channel ("channel") {
        /// By SMTP.
        Email = "EMAIL",
        /// By the SMS provider's HTTP API.
        Sms = "SMS",
    }
}

codes! {
    /// Why a notice was not sent.
    SkipReason ("skip reason") {
        /// The order was settled before the reminder was due.
        Settled = "SETTLED",
        /// Its cause is older than a day.
        TooOld = "TOO_OLD",
        /// The customer has no address.
        NoContact = "NO_CONTACT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        for code in CancelReason::ALL {
            assert_eq!(CancelReason::parse(code.as_str()), Ok(*code));
        }
        for code in NoticeKind::ALL {
            assert_eq!(NoticeKind::parse(code.as_str()), Ok(*code));
        }
    }

    #[test]
    fn an_unknown_code_is_named_but_bounded() {
        let error = Channel::parse(&"X".repeat(1000)).unwrap_err().to_string();
        assert!(error.contains("is no channel") && error.len() < 100, "{error}");
    }
}
