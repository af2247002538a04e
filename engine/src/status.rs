//! What the processors of this process are doing, for readiness and for `orderctl processors`.
//!
//! Only told here, never decided: nothing reads a status to act on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;

/// What a processor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Reads positions, compares log and database.
    Preparing,
    /// Takes inputs in.
    Live,
    /// Keeps its inputs until something outside is back, or until this build is upgraded.
    Waiting,
    /// Most of its records fail: it tries the next one from time to time.
    Paused,
    /// Will not go on by itself.
    Stopped,
}

/// One processor, as `/readyz` and `/admin/processors` show it.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessorStatus {
    /// Partition number.
    pub partition: i32,
    /// What it is doing.
    pub state: State,
    /// Why it is not live.
    pub reason: Option<String>,
    /// Its epoch.
    pub epoch: i64,
    /// Number of its last committed batch.
    pub batch: i64,
    /// Next offset per input topic.
    pub positions: BTreeMap<String, i64>,
    /// Records of the inputs that are not taken in yet, as far as known.
    pub lag: i64,
    /// Own events decided.
    pub sequence: i64,
    /// Own events acknowledged by Kafka.
    pub acked_sequence: i64,
    /// Effects that wait for an answer or a try.
    pub open_effects: usize,
    /// Records that cannot be applied, dead ones included, and those that wait behind them.
    pub held: usize,
    /// Age of the oldest timer that is due and has not fired, in seconds.
    pub oldest_timer_seconds: i64,
}

impl ProcessorStatus {
    fn new(partition: i32) -> Self {
        Self {
            partition,
            state: State::Preparing,
            reason: None,
            epoch: 0,
            batch: 0,
            positions: BTreeMap::new(),
            lag: 0,
            sequence: 0,
            acked_sequence: 0,
            open_effects: 0,
            held: 0,
            oldest_timer_seconds: 0,
        }
    }
}

/// Whether the engine of this process does its work.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// True when every processor that the group assigned here is live.
    pub ready: bool,
    /// Why it is not.
    pub reasons: Vec<String>,
    /// All processors assigned here.
    pub processors: Vec<ProcessorStatus>,
}

#[derive(Debug, Default)]
struct Board {
    joined: bool,
    group_trouble: Option<String>,
    processors: BTreeMap<i32, ProcessorStatus>,
}

/// The board that processors write on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status(Arc<Mutex<Board>>);

impl Status {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The group gave these processors to this process, and only these.
    pub(crate) fn assigned(&self, partitions: &[i32], trouble: Option<String>) {
        let mut board = self.board();
        board.joined = true;
        board.group_trouble = trouble;
        board.processors.clear();
        board.processors.extend(partitions.iter().map(|partition| (*partition, ProcessorStatus::new(*partition))));
    }

    /// The group took everything away.
    pub(crate) fn revoked(&self) {
        let mut board = self.board();
        board.joined = false;
        board.processors.clear();
    }

    /// The whole group is in trouble, or no longer.
    pub(crate) fn trouble(&self, reason: Option<String>) {
        self.board().group_trouble = reason;
    }

    /// Changes what is told of a processor.
    pub(crate) fn update(&self, partition: i32, change: impl FnOnce(&mut ProcessorStatus)) {
        if let Some(status) = self.board().processors.get_mut(&partition) {
            change(status);
        }
    }

    pub(crate) fn set(&self, partition: i32, state: State, reason: Option<String>) {
        self.update(partition, |status| {
            status.state = state;
            status.reason = reason;
        });
    }

    /// What readiness says.
    pub(crate) fn readiness(&self, service: &str) -> Readiness {
        let board = self.board();
        let processors: Vec<_> = board.processors.values().cloned().collect();
        let mut reasons: Vec<String> = board.group_trouble.iter().cloned().collect();
        if !board.joined {
            reasons.push(format!("{service} has not been assigned its processors by the consumer group yet"));
        }
        let idle = processors.iter().filter(|status| status.state != State::Live);
        reasons.extend(idle.map(|status| {
            let why = status.reason.as_deref().unwrap_or("it is getting ready");
            format!("processor {} is not live: {why}", status.partition)
        }));
        Readiness { ready: reasons.is_empty(), reasons, processors }
    }
}
