//! What a batch does with effects that have used up their attempts: letters and rows while their state asks for them; and
//! with dead ones, when it asks no more.
//!
//! So a dead effect stands in the table exactly as long as its state asks for it, whatever ended that: its answer, another
//! event, an operator. A fold knows that from its states ([`crate::fold`]), without a word for it in the log.

use std::collections::HashSet;

use events::time::Timestamp;
use sqlx::PgConnection;

use super::keeping::tell;
use super::{Decided, Decision};
use crate::acts::Act;
use crate::batch::{Batch, BatchError, database};
use crate::effects::DeadEffect;
use crate::exhausted::Exhausted;
use crate::item::What;
use crate::letter::{Letter, Step};
use crate::record::{Output, Record};
use crate::service::{EffectMark, Service};
use crate::shared::Shared;

impl<S: Service> Decision<'_, S> {
    /// An event of this key may settle what is dead of it.
    pub(super) fn touch(&mut self, key: i64) {
        if let Some(dead) = self.dead.get(&key) {
            self.decided.dead.entry(key).or_insert_with(|| dead.clone());
        }
    }

    /// An effect has its answer: what an operator wanted of it is done.
    pub(super) fn done(&mut self, mark: &EffectMark) -> Option<Act> {
        self.touch(mark.key);
        let dead = self.decided.dead.get_mut(&mark.key)?.iter_mut().find(|dead| dead.is(mark))?;
        let act = dead.act.take();
        self.decided.acts.extend(act.as_ref().map(|act| act.id));
        act
    }
}

/// The last thing that is decided in a batch, when its states are saved: which effects are dead.
pub(crate) async fn bury<S: Service>(
    shared: &Shared<S>,
    conn: &mut PgConnection,
    (partition, now): (i32, Timestamp),
    batch: &Batch<S::Input>,
    decided: &mut Decided,
) -> Result<(), BatchError> {
    let exhausted: Vec<(&Exhausted, &Record)> = batch.items.iter().filter_map(|item| exhausted(&item.what)).collect();
    let mut marks: Vec<EffectMark> = decided.dead.values().flatten().map(|dead| dead.mark).collect();
    marks.extend(exhausted.iter().map(|(one, _)| one.mark));
    if marks.is_empty() {
        return Ok(());
    }
    let asked = shared.service.effects_read(conn, partition, &marks).await.map_err(database)?;
    let asked: HashSet<_> = asked.iter().map(|(mark, _)| name(mark)).collect();
    let topic = &shared.outputs[Output::Events.place()];
    for dead in decided.dead.values_mut() {
        for through in dead.extract_if(.., |dead| !asked.contains(&name(&dead.mark))) {
            decided.settled.push((topic.clone(), through.offset, Some(through.mark.kind.to_owned())));
            decided.acts.extend(through.act.map(|act| act.id));
        }
    }
    for (one, event) in exhausted.into_iter().filter(|(one, _)| asked.contains(&name(&one.mark))) {
        let dead = decided.dead.entry(one.mark.key).or_insert_with(|| before(batch, one.mark.key));
        let act = match dead.iter_mut().find(|dead| dead.is(&one.mark)) {
            Some(dead) => dead.act.take(),
            None => {
                dead.push(DeadEffect { mark: one.mark, offset: event.offset, act: None });
                None
            }
        };
        decided.acts.extend(act.as_ref().map(|act| act.id));
        let letter = Letter {
            step: Step::Died,
            record: event,
            source_sequence: Some(one.mark.set_by.sequence),
            effect: Some(one.mark.kind),
            flaw: &one.flaw,
            attempts: one.attempts,
            first_at: Some(one.first_at),
            act: act.as_ref(),
        };
        let row = tell(shared, now, decided, &letter)?;
        decided.held.extend(row);
        shared.meters.dead.inc();
    }
    Ok(())
}

fn exhausted<I>(what: &What<I>) -> Option<(&Exhausted, &Record)> {
    if let What::Exhausted(one, event) = what { Some((one, event)) } else { None }
}

fn before<I>(batch: &Batch<I>, key: i64) -> Vec<DeadEffect> {
    batch.dead.get(&key).cloned().unwrap_or_default()
}

/// What tells an effect from one of the same name that another event asks for.
fn name(mark: &EffectMark) -> (i64, &'static str, i64) {
    (mark.key, mark.kind, mark.set_by.sequence)
}
