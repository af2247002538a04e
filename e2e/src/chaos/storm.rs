//! The time of the faults: each is begun and ended when the plan says so, and written down with whether it was felt.
//!
//! It goes on when the system does not: what that means is seen afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::faults::{Act, Fault};
use super::field::Field;
use super::progress::Progress;
use super::{CALM, Options};
use crate::evidence;
use crate::evidence::lines::Lines;

/// How often the field is looked after and the line on the terminal is written.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A fault under way.
struct Begun {
    at: i64,
    troubles_before: usize,
    felt: Option<bool>,
}

/// Carries out the plan; returns what was done.
///
/// # Errors
/// When this machine does not let something be done.
pub(super) async fn weather(
    field: &mut Field,
    faults: &[Fault],
    options: &Options,
    log: &Lines,
) -> anyhow::Result<Vec<evidence::Fault>> {
    let mut steps: Vec<(Duration, usize, usize)> = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        steps.extend(fault.acts.iter().enumerate().map(|(act, (after, _))| (fault.at + *after, number, act)));
    }
    steps.sort();
    let (mut begun, mut done) = (BTreeMap::<usize, Begun>::new(), Vec::new());
    let mut progress = Progress::new(options)?;
    let began = Instant::now();
    for (at, number, act) in steps {
        wait(field, began, CALM + at, &mut progress, &names(faults, &begun)).await?;
        let fault = &faults[number];
        if act == 0 {
            let troubles_before = field.links.troubles(&fault.links());
            begun.insert(number, Begun { at: field.load.history.now(), troubles_before, felt: None });
        }
        let (_, what) = &fault.acts[act];
        let met = field.act(what).await?;
        if let Some(state) = begun.get_mut(&number) {
            state.felt = match (state.felt, met) {
                (Some(before), Some(now)) => Some(before || now),
                (before, now) => now.or(before),
            };
        }
        if act + 1 < fault.acts.len() {
            continue;
        }
        if let Some(state) = begun.remove(&number) {
            // A reset or a lost reply is seen a moment later.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let line = ended(field, fault, &state);
            log.append(&line)?;
            done.push(line);
        }
    }
    wait(field, began, options.length, &mut progress, &[]).await?;
    progress.end();
    Ok(done)
}

fn names<'a>(faults: &'a [Fault], begun: &BTreeMap<usize, Begun>) -> Vec<&'a str> {
    begun.keys().map(|number| faults[*number].kind).collect()
}

async fn wait(
    field: &mut Field,
    began: Instant,
    until: Duration,
    progress: &mut Progress,
    now: &[&str],
) -> anyhow::Result<()> {
    loop {
        let left = until.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
        field.look_after()?;
        progress.show(field, began.elapsed(), now).await?;
    }
}

fn ended(field: &Field, fault: &Fault, state: &Begun) -> evidence::Fault {
    let links = fault.links();
    let in_trouble = (!links.is_empty()).then(|| field.links.troubles(&links) > state.troubles_before);
    // A thin link counts nothing.
    let counted = fault.acts.iter().all(|(_, act)| match act {
        Act::Change(_, faults) => faults.up.bytes_per_s.is_none(),
        _ => true,
    });
    let by_links = in_trouble.filter(|_| counted);
    let felt = match (state.felt, by_links) {
        (Some(acts), Some(links)) => Some(acts || links),
        (acts, links) => acts.or(links),
    };
    evidence::Fault {
        at: state.at,
        kind: fault.kind.to_owned(),
        target: fault.target.clone(),
        detail: fault.detail.clone(),
        felt,
    }
}
