//! The bodies and queries of [`crate::http`]: what clients send, and what they are shown.
//!
//! Shapes and their limits only.

use std::fmt;
use std::str::FromStr;

use edge::fields::{Body, Object};
use edge::lists::{Page, Params, Query};
use events::code::{Channel, NotACode, NoticeKind, SkipReason};
use events::id::OrderId;
use events::time::Timestamp;
use serde::Serialize;

use crate::contact;
use crate::state::{Delivery, Fate, Notice, message_id};

/// What became of a notice on one channel.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DeliveryView {
    #[schema(value_type = String, example = "EMAIL")]
    channel: Channel,
    /// PENDING, SENT or FAILED.
    #[schema(example = "SENT")]
    status: &'static str,
    /// Derived from order, kind and channel.
    message_id: String,
}

/// One notice of an order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct NoticeView {
    #[schema(value_type = String)]
    order_id: OrderId,
    #[schema(value_type = String, example = "ORDER_CONFIRMED")]
    kind: NoticeKind,
    /// SCHEDULED while a channel is pending; then SENT (on one channel at least), FAILED or SKIPPED.
    #[schema(example = "SENT")]
    status: &'static str,
    /// Why it was skipped: SETTLED, TOO_OLD or NO_CONTACT.
    #[schema(value_type = Option<String>)]
    reason: Option<SkipReason>,
    /// Not sent before; null in a skipped notice.
    #[schema(value_type = Option<String>, format = DateTime)]
    due_at: Option<Timestamp>,
    /// The channels it is sent on; none in a skipped notice.
    channels: Vec<DeliveryView>,
    /// Time of its last event.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// A page of notices.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct NoticesPage {
    items: Vec<NoticeView>,
    /// For the next page, or null on the last.
    next_cursor: Option<String>,
}

impl NoticeView {
    pub(crate) fn of(order_id: OrderId, kind: NoticeKind, notice: &Notice) -> Self {
        let updated_at = notice.updated_at;
        let skipped =
            Self { order_id, kind, status: "SKIPPED", reason: None, due_at: None, channels: Vec::new(), updated_at };
        match &notice.fate {
            Fate::Skipped(reason) => Self { reason: Some(*reason), ..skipped },
            Fate::Scheduled { due_at, channels, .. } => {
                let is = |wanted| channels.values().any(|delivery| *delivery == wanted);
                let status = if is(Delivery::Pending) {
                    "SCHEDULED"
                } else if is(Delivery::Sent) {
                    "SENT"
                } else {
                    "FAILED"
                };
                let channels = channels.iter().map(|(channel, delivery)| DeliveryView {
                    channel: *channel,
                    status: delivery.as_str(),
                    message_id: message_id(order_id, kind, *channel),
                });
                Self { status, due_at: Some(*due_at), channels: channels.collect(), ..skipped }
            }
        }
    }
}

/// Which notices are asked for.
#[derive(Debug)]
pub(crate) struct NoticesQuery {
    pub(crate) order_id: OrderId,
    pub(crate) page: Page<Cursor>,
}

impl Query for NoticesQuery {
    fn read(params: &Params) -> Option<Self> {
        let order_id = params.required("order", OrderId::from_str);
        let page = params.page();
        Some(Self { order_id: order_id?, page: page? })
    }
}

/// A list of notices goes on behind this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor(pub(crate) NoticeKind);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = NotACode;

    fn from_str(text: &str) -> Result<Self, NotACode> {
        NoticeKind::parse(text).map(Self)
    }
}

/// Where a customer can be reached.
#[derive(Debug, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContactBody {
    /// For mail.
    #[schema(format = Email, max_length = 254, example = "ann@example.com")]
    pub(crate) email: Option<String>,
    /// For SMS, as E.164 writes it.
    #[schema(pattern = r"^\+[1-9][0-9]{1,14}$", example = "+4930123456")]
    pub(crate) phone: Option<String>,
}

impl Body for ContactBody {
    fn read(body: &Object<'_>) -> Option<Self> {
        let email = body.field("email").optional(|email| email.parsed_by(contact::email));
        let phone = body.field("phone").optional(|phone| phone.parsed_by(contact::phone));
        Some(Self { email: email?, phone: phone? })
    }
}

/// Where a customer can be reached, as it is now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ContactView {
    pub(crate) customer_id: String,
    pub(crate) email: Option<String>,
    pub(crate) phone: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use events::id::EventId;
    use events::record::SetBy;

    use super::*;
    use crate::state::Letter;

    fn scheduled(channels: &[(Channel, Delivery)]) -> Notice {
        let fate = Fate::Scheduled {
            letter: Letter::default(),
            due_at: Timestamp(7),
            set_by: SetBy { event_id: EventId(1), sequence: 1 },
            channels: channels.iter().copied().collect::<BTreeMap<_, _>>(),
        };
        Notice { customer_id: "c-1".to_owned(), fate, updated_at: Timestamp(9) }
    }

    #[test]
    fn a_notice_is_scheduled_until_every_channel_has_ended() {
        let status = |email, sms| {
            let notice = scheduled(&[(Channel::Email, email), (Channel::Sms, sms)]);
            NoticeView::of(OrderId(7), NoticeKind::OrderExpired, &notice).status
        };
        assert_eq!(status(Delivery::Sent, Delivery::Pending), "SCHEDULED");
        assert_eq!(status(Delivery::Failed, Delivery::Pending), "SCHEDULED");
        assert_eq!(status(Delivery::Sent, Delivery::Failed), "SENT");
        assert_eq!(status(Delivery::Failed, Delivery::Failed), "FAILED");
    }

    #[test]
    fn a_notice_is_shown_as_documented() {
        let view = |notice: &Notice| {
            serde_json::to_value(NoticeView::of(OrderId(7), NoticeKind::OrderConfirmed, notice)).unwrap()
        };
        assert_eq!(
            view(&scheduled(&[(Channel::Sms, Delivery::Sent)])),
            serde_json::json!({
                "order_id": "7", "kind": "ORDER_CONFIRMED", "status": "SENT", "reason": null,
                "due_at": "1970-01-01T00:00:00.007Z", "updated_at": "1970-01-01T00:00:00.009Z",
                "channels": [
                    {"channel": "SMS", "status": "SENT", "message_id": "7.ORDER_CONFIRMED.SMS@orderlog"},
                ],
            })
        );
        let skipped = Notice { fate: Fate::Skipped(SkipReason::NoContact), ..scheduled(&[]) };
        assert_eq!(
            view(&skipped),
            serde_json::json!({
                "order_id": "7", "kind": "ORDER_CONFIRMED", "status": "SKIPPED", "reason": "NO_CONTACT",
                "due_at": null, "updated_at": "1970-01-01T00:00:00.009Z", "channels": [],
            })
        );
    }

    #[test]
    fn a_wrong_contact_is_named() {
        let errors = |body: &str| -> Vec<String> {
            let problem = edge::fields::parse::<ContactBody>(body.as_bytes()).unwrap_err();
            problem.errors().iter().map(|error| error.pointer.clone()).collect()
        };
        assert_eq!(errors(r#"{"email":"ann","phone":"12","fax":"x"}"#), ["/email", "/phone", "/fax"]);
        assert_eq!(errors(r#"{"email":7}"#), ["/email"]);
        let body = edge::fields::parse::<ContactBody>(br#"{"phone":null}"#).unwrap();
        assert_eq!((body.email, body.phone), (None, None));
    }
}
