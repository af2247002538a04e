//! What a notice says, in words.
//!
//! Pure text from what the notice's event holds; every notice names its order. How it is sent is [`crate::mailer`]'s.

use events::code::{CancelReason, NoticeKind};
use events::id::OrderId;
use events::time::Timestamp;
use time::macros::format_description;

use crate::state::Letter;

/// A notice in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// One line, for mail.
    pub subject: String,
    /// One or two sentences, for both channels.
    pub text: String,
}

/// Writes a notice.
#[must_use]
pub fn words(order_id: OrderId, kind: NoticeKind, letter: &Letter) -> Words {
    let of = letter.total.map(|total| format!(" of {total}")).unwrap_or_default();
    let (subject, text) = match kind {
        NoticeKind::OrderConfirmed => (
            format!("Your order {order_id} is confirmed"),
            format!("Thank you. We have received your payment{of}, and your order {order_id} is confirmed."),
        ),
        NoticeKind::OrderCancelled => (
            format!("Your order {order_id} is cancelled"),
            format!("Your order {order_id}{of} is cancelled{}", because(letter.reason.as_deref())),
        ),
        NoticeKind::OrderExpired => (
            format!("Your order {order_id} has expired"),
            format!("Your order {order_id}{of} was not paid in time and has expired. You owe us nothing."),
        ),
        NoticeKind::PaymentReminder => (
            format!("Please pay your order {order_id}"),
            format!("Your order {order_id}{of} is not paid yet.{}", how_to_pay(letter)),
        ),
        NoticeKind::PaymentRefunded => (
            format!("Your money for order {order_id} is on its way back"),
            format!("We have refunded your payment{of} for order {order_id}."),
        ),
    };
    Words { subject, text }
}

fn because(reason: Option<&str>) -> &'static str {
    // A code that a newer service has added is no reason to say nothing.
    match reason.map(CancelReason::parse) {
        Some(Ok(CancelReason::OutOfStock)) => ": something in it is out of stock. You were not charged.",
        Some(Ok(CancelReason::PaymentDeclined)) => ": your payment was declined.",
        Some(Ok(CancelReason::PaymentFailed)) => ": your payment could not be made.",
        Some(Ok(CancelReason::Customer)) => ", as you asked.",
        Some(Err(_)) | None => ".",
    }
}

fn how_to_pay(letter: &Letter) -> String {
    let by = letter.pay_by.and_then(minute).map(|minute| format!(" Please pay by {minute} UTC, or it will expire."));
    let at = letter.pay_url.as_deref().map(|url| format!(" You can pay here: {url}"));
    by.into_iter().chain(at).collect()
}

fn minute(time: Timestamp) -> Option<String> {
    time.to_utc()?.format(format_description!("[year]-[month]-[day] [hour]:[minute]")).ok()
}

#[cfg(test)]
mod tests {
    use events::money::{Currency, Money};

    use super::*;

    const ORDER: OrderId = OrderId(1_082_185);

    fn letter(reason: Option<&str>) -> Letter {
        Letter {
            total: Some(Money::new(198, Currency::USD)),
            reason: reason.map(str::to_owned),
            pay_by: Some(Timestamp(1_767_226_500_000)),
            pay_url: Some("http://pay.test/checkout/charge:1082185".to_owned()),
        }
    }

    #[test]
    fn every_notice_names_its_order_and_fits_one_line() {
        for kind in NoticeKind::ALL {
            for letter in [letter(None), Letter::default()] {
                let Words { subject, text } = words(ORDER, *kind, &letter);
                assert!(subject.contains("1082185") && text.contains("1082185"), "{kind}: {text}");
                assert!(!subject.contains('\n') && subject.len() < 78, "{subject}");
                assert!(text.ends_with(['.', '5']) && !text.contains("  "), "{text}");
            }
        }
    }

    #[test]
    fn a_reminder_says_how_much_where_and_until_when() {
        let expected = "Your order 1082185 of 1.98 USD is not paid yet. Please pay by 2026-01-01 00:15 UTC, or it will \
                        expire. You can pay here: http://pay.test/checkout/charge:1082185";
        assert_eq!(words(ORDER, NoticeKind::PaymentReminder, &letter(None)).text, expected);
    }

    #[test]
    fn a_cancellation_says_why() {
        for reason in CancelReason::ALL {
            let text = words(ORDER, NoticeKind::OrderCancelled, &letter(Some(reason.as_str()))).text;
            assert!(text.starts_with("Your order 1082185 of 1.98 USD is cancelled"), "{text}");
            assert!(!text.ends_with("cancelled."), "{text}");
        }
        let text = words(ORDER, NoticeKind::OrderCancelled, &letter(Some("NEW_REASON"))).text;
        assert_eq!(text, "Your order 1082185 of 1.98 USD is cancelled.");
    }
}
