//! A normal build: no bug is in it, and nothing of this costs anything.

use std::future::{Ready, ready};

use sqlx::{PgConnection, PgPool};

use crate::intake::Place;
use crate::record::OutRecord;
use crate::service::Service;
use crate::shared::Shared;

/// Whether this process has this bug.
#[must_use]
pub const fn is(_name: &'static str) -> bool {
    false
}

/// Whether this build is too old for this record type.
pub(crate) const fn lacks(_type_name: &str) -> bool {
    false
}

/// Whether this build reads what another has written wrongly.
pub(crate) const fn is_mended() -> bool {
    false
}

pub(crate) const fn fence(statement: &'static str) -> &'static str {
    statement
}

/// Nothing was looked at.
pub(crate) struct Seen;

pub(crate) fn outbox_before(_conn: &mut PgConnection, _partitions: &[i32]) -> Ready<Result<Seen, sqlx::Error>> {
    ready(Ok(Seen))
}

pub(crate) fn miss_outbox_behind(_conn: &mut PgConnection, _seen: Seen) -> Ready<Result<(), sqlx::Error>> {
    ready(Ok(()))
}

pub(crate) fn move_positions(
    _pool: &PgPool,
    _places: impl Iterator<Item = (i32, Vec<(String, Place)>)>,
) -> Ready<Result<(), sqlx::Error>> {
    ready(Ok(()))
}

pub(crate) fn publish_beside<S: Service>(_shared: &Shared<S>, _records: &mut Vec<OutRecord>) {}
