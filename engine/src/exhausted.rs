//! Effects whose attempts are used up: the own events that asked for them are read back from the log, because a dead letter
//! holds their bytes.
//!
//! An effect starts only when its event is acknowledged, so the log has it. What a batch makes of it is
//! [`crate::decision`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use events::time::Timestamp;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use crate::calls::Done;
use crate::letter::Flaw;
use crate::own_log;
use crate::record::{Output, Record};
use crate::service::{EffectMark, Service};
use crate::shared::Shared;

/// When Kafka does not answer, it is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// An effect that failed once too often.
#[derive(Debug)]
pub(crate) struct Exhausted {
    pub(crate) mark: EffectMark,
    pub(crate) attempts: u32,
    /// When it failed first.
    pub(crate) first_at: Timestamp,
    /// What went wrong at last.
    pub(crate) flaw: Flaw,
}

/// Reads their events back, however long that takes, while somebody waits for them.
pub(crate) async fn read_back<S: Service>(
    shared: Arc<Shared<S>>,
    partition: i32,
    exhausted: Vec<Exhausted>,
    done: UnboundedSender<Done<S::Input>>,
) {
    while !done.is_closed() {
        let marks = exhausted.iter().map(|one| one.mark.set_by);
        let wanted: BTreeMap<i64, i64> = marks.map(|set_by| (set_by.sequence, set_by.event_id.0)).collect();
        let (kafka, topic) = (Arc::clone(&shared.kafka), shared.outputs[Output::Events.place()].clone());
        let wanted: Vec<(i64, i64)> = wanted.into_iter().collect();
        let find = move || own_log::find(&kafka, &topic, partition, &wanted);
        match tokio::task::spawn_blocking(find).await.context("reading the log").and_then(|found| found) {
            Ok(found) => {
                let with_event = |one: Exhausted| {
                    let event = found[&one.mark.set_by.sequence].clone();
                    (one, event)
                };
                let exhausted: Vec<(Exhausted, Record)> = exhausted.into_iter().map(with_event).collect();
                // The processor may have ended: its successor tries them once more.
                drop(done.send(Done::Exhausted(exhausted)));
                return;
            }
            Err(error) => {
                warn!(kafka.partition = partition, error = format!("{error:#}"), "dead effects wait for their events");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
