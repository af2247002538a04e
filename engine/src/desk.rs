//! The dead-letter desk: what operators see of held and dead records, and how they ask for something to be done.
//!
//! Reads the table and writes acts; nothing is applied here. The owning processor does what is asked, in a batch of its own
//! (`acts.rs`), so this works at any instance. What of it may be shown to whom is `edge`'s.

mod forecast;
mod table;

use std::sync::Arc;

use events::codec::Codec;
use events::time::Timestamp;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

pub use crate::acts::Deed;
use crate::kafka::Kafka;
use crate::service::Service;

/// Records that fail alike.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// Short name, made from what follows.
    pub group: String,
    /// `strange`, `poison`, `undecodable`, `failed`, `effect`
    pub class: String,
    /// Stable code, or Postgres' SQLSTATE.
    pub code: String,
    /// Full name of the type, as far as the record says it.
    pub event_type: Option<String>,
    /// ID of its schema, as far as its bytes say it.
    pub schema_id: Option<i64>,
    /// How many there are.
    pub count: i64,
    /// How many keys they are of.
    pub keys: i64,
    /// Records that wait behind them.
    pub waiting: i64,
    /// When the first of them was kept.
    pub first_at: Timestamp,
    /// When the last of them failed.
    pub last_at: Timestamp,
    /// What went wrong with the last one.
    pub message: String,
    /// The first of them.
    pub sample: Address,
}

/// Where a record lies, or the own event that asked for an effect: its name at the desk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Input topic, on the broker.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Kafka's offset.
    pub offset: i64,
    /// The effect that is dead, which the record there asked for; none when the record itself is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

/// A held or dead record or a dead effect, without bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// Where it lies.
    #[serde(flatten)]
    pub address: Address,
    /// The group of its like.
    pub group: String,
    /// `dead`; `held`, which is tried again; or `waiting` behind another one.
    pub state: &'static str,
    /// The aggregate's ID, as text.
    pub key: Option<String>,
    /// Full name of its type, as far as it says it.
    pub event_type: Option<String>,
    /// What kind of failure it is.
    pub class: String,
    /// Stable code, or Postgres' SQLSTATE.
    pub code: String,
    /// For people.
    pub message: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was kept first.
    pub first_at: Timestamp,
    /// When it failed last.
    pub last_at: Timestamp,
}

/// Everything about one record.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// What the list says too.
    #[serde(flatten)]
    pub kept: Kept,
    /// Its own sequence, if it has one.
    pub sequence: Option<i64>,
    /// Headers as text; bytes that are none are shown by a replacement character.
    pub headers: Vec<(String, String)>,
    /// The value in hexadecimal digits; none when it is null.
    pub value_hex: Option<String>,
    /// What waits behind it.
    pub behind: Vec<Address>,
}

/// Which records are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// All dead ones.
    All,
    /// The dead ones of a group.
    Group(&'a str),
    /// The dead ones of a key.
    Key(i64),
    /// This one, dead or held.
    One(&'a Address),
}

/// A choice among dead records, the oldest first.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// Which are meant.
    pub which: Which<'a>,
    /// Only those that failed last before this time: what has died again since then is left out.
    pub failed_before: Option<Timestamp>,
    /// At most so many.
    pub limit: i64,
}

/// What a redrive would do with a record.
#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
    /// Where it lies.
    #[serde(flatten)]
    pub address: Address,
    /// True when it would be through; none when only the call itself can tell.
    pub applied: Option<bool>,
    /// The event that it would lead to, or what would go wrong.
    pub outcome: String,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// When, by Postgres' clock.
    pub at: Timestamp,
    /// About these records.
    pub records: Vec<Address>,
}

/// How far what was asked for got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Not done yet.
    pub asked: usize,
    /// Done, and through.
    pub settled: usize,
    /// Done, and kept still or again.
    pub kept: usize,
}

/// What the admin routes ask of a desk.
pub trait DeadLetters: Send + Sync + 'static {
    /// Dead records by what they fail of, the largest group first.
    fn groups(&self) -> BoxFuture<'_, anyhow::Result<Vec<Group>>>;

    /// Records of a state (`dead`, or all that are not), the oldest first, at most so many.
    fn list<'a>(&'a self, chosen: Selection<'a>, dead: bool) -> BoxFuture<'a, anyhow::Result<Vec<Kept>>>;

    /// Everything about one record; `None` when it is not kept.
    fn show<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, anyhow::Result<Option<Shown>>>;

    /// Asks for something to be done about records, and says which and when; those that are asked for already, or may not
    /// be discarded, are left out.
    fn ask<'a>(&'a self, deed: Deed, chosen: Selection<'a>, by: By<'a>) -> BoxFuture<'a, anyhow::Result<Asked>>;

    /// How far what was asked for got.
    fn standing<'a>(&'a self, records: &'a [Address]) -> BoxFuture<'a, anyhow::Result<Standing>>;

    /// What a redrive would do, in transactions that are rolled back.
    fn forecast<'a>(&'a self, chosen: Selection<'a>) -> BoxFuture<'a, anyhow::Result<Vec<Forecast>>>;

    /// True when this may be discarded.
    fn may_discard(&self, kept: &Kept) -> bool;
}

/// Who asks, and why.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// The `sub` of the operator's token.
    pub sub: &'a str,
    /// In the operator's words.
    pub reason: &'a str,
}

/// The desk of one service.
#[derive(Debug)]
pub struct Desk<S> {
    /// Tried on in a forecast.
    pub service: Arc<S>,
    /// Where its topics are.
    pub kafka: Arc<Kafka>,
    /// With the registry's IDs.
    pub codec: Arc<Codec>,
    /// Not the processors' own.
    pub pool: PgPool,
}

impl<S: Service> DeadLetters for Desk<S> {
    fn groups(&self) -> BoxFuture<'_, anyhow::Result<Vec<Group>>> {
        Box::pin(self.read_groups())
    }

    fn list<'a>(&'a self, chosen: Selection<'a>, dead: bool) -> BoxFuture<'a, anyhow::Result<Vec<Kept>>> {
        Box::pin(self.read_list(chosen, dead))
    }

    fn show<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, anyhow::Result<Option<Shown>>> {
        Box::pin(self.read_one(address))
    }

    fn ask<'a>(&'a self, deed: Deed, chosen: Selection<'a>, by: By<'a>) -> BoxFuture<'a, anyhow::Result<Asked>> {
        Box::pin(self.write_acts(deed, chosen, by))
    }

    fn standing<'a>(&'a self, records: &'a [Address]) -> BoxFuture<'a, anyhow::Result<Standing>> {
        Box::pin(self.look_at(records))
    }

    fn forecast<'a>(&'a self, chosen: Selection<'a>) -> BoxFuture<'a, anyhow::Result<Vec<Forecast>>> {
        Box::pin(self.try_out(chosen))
    }

    fn may_discard(&self, kept: &Kept) -> bool {
        match &kept.address.effect {
            Some(effect) => {
                let key = kept.key.as_deref().and_then(|key| key.parse().ok());
                key.is_some_and(|key| self.service.discard_effect(key, effect).is_some())
            }
            None => kept.event_type.as_deref().is_none_or(|name| self.service.may_be_discarded(name)),
        }
    }
}
