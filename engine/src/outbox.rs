//! What was decided and what of it Kafka has: the rows of the outbox, and how far their publisher got.
//!
//! Plain data between processor and [`crate::publisher`]; the table is [`crate::store`]'s.

use std::sync::Arc;

use crate::record::OutRecord;
use crate::store::OutputState;

/// A batch's records, as its outbox row holds them.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) batch: i64,
    pub(crate) records: Arc<Vec<OutRecord>>,
}

/// Records and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Load {
    pub(crate) fn add(&mut self, record: &OutRecord) {
        self.records += 1;
        self.bytes += record.bytes() as u64;
    }
}

/// What Kafka has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Every outbox row up to this batch is acknowledged.
    pub(crate) acked_batch: i64,
    /// Per own topic, in the order of [`Output::ALL`]: last acknowledged sequence, its offset.
    pub(crate) acked: [OutputState; 3],
    /// What this publisher is through with.
    pub(crate) through: Load,
    /// Set when another writer was found on an own topic; the publisher has stopped.
    pub(crate) forked: Option<String>,
}

impl Progress {
    pub(crate) fn events_sequence(&self) -> i64 {
        self.acked[0].acked_sequence
    }
}

/// Where an own topic's partition ended when the processor was assigned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Highest sequence that the log holds, and its offset.
    pub(crate) sequence: i64,
    pub(crate) offset: i64,
    /// The next offset that Kafka will give.
    pub(crate) next_offset: i64,
}

/// What the last owner left.
#[derive(Debug)]
pub(crate) struct Left {
    /// Where the own topics end.
    pub(crate) ends: [End; 3],
    /// The outbox, oldest row first.
    pub(crate) rows: Vec<Row>,
    /// The last batch that needs no sending.
    pub(crate) acked_batch: i64,
}
