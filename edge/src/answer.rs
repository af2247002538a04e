//! The 202: what a client is told when its command is in the log, the same for ever.
//!
//! Which command it is about is found by [`crate::commands`].

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderName};
use events::id::CommandId;

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The two IDs of a command: all that its 202 is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The aggregate: an order, a product.
    pub subject: i64,
    /// The command.
    pub command_id: CommandId,
}

/// A 202. Made from [`Ids`] alone by a pure function, so that it is the same after a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The header `Location`.
    pub location: String,
    /// The body, JSON.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer with this body.
    #[must_use]
    pub fn new(location: String, body: &serde_json::Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { location, body }
    }
}

/// A command that is in the log.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its IDs.
    pub ids: Ids,
    /// It was there before this request.
    pub replayed: bool,
    pub(crate) answer: Answer,
}

impl Accepted {
    /// The 202.
    #[must_use]
    pub fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::Accepted();
        response.insert_header((header::LOCATION, self.answer.location.as_str()));
        if self.replayed {
            response.insert_header((REPLAYED, "true"));
        }
        response.content_type("application/json").body(self.answer.body.clone())
    }
}
