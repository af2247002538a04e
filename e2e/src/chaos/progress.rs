//! The line on the terminal while a run goes on, and beside it the samples of what processes keep in memory.
//!
//! Elsewhere than on a terminal a line is written every ten seconds.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use super::Options;
use super::field::Field;
use crate::evidence::lines::Lines;

const ASK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What was shown last.
pub(super) struct Progress {
    length: Duration,
    is_live: bool,
    on_terminal: bool,
    confirmed: i64,
    asked: Option<Instant>,
    shown: Option<Instant>,
    sampled: Instant,
    samples: Lines,
}

impl Progress {
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        Ok(Self {
            length: options.length,
            is_live: options.is_live,
            on_terminal: std::io::stderr().is_terminal(),
            confirmed: 0,
            asked: None,
            shown: None,
            sampled: Instant::now(),
            samples: Lines::open(&options.out, "resources.ndjson")?,
        })
    }

    /// `faults` are those in force.
    pub(super) async fn show(&mut self, field: &mut Field, elapsed: Duration, faults: &[&str]) -> anyhow::Result<()> {
        if self.sampled.elapsed() > SAMPLE_EVERY {
            self.sampled = Instant::now();
            field.samples().iter().try_for_each(|sample| self.samples.append(sample))?;
        }
        if self.is_live {
            self.line(field, elapsed, faults).await;
        }
        Ok(())
    }

    async fn line(&mut self, field: &Field, elapsed: Duration, faults: &[&str]) {
        if self.asked.is_none_or(|at| at.elapsed() > ASK_EVERY) {
            self.asked = Some(Instant::now());
            self.confirmed = confirmed(&field.stack.databases["order-svc"]).await.unwrap_or(self.confirmed);
        }
        let every = if self.on_terminal { Duration::ZERO } else { LINE_EVERY };
        if self.shown.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.shown = Some(Instant::now());
        let now = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let tally = &field.load.tally;
        let line = format!(
            "{:>4} s left; {} orders accepted, {} confirmed; {} answers ok, {} unclear; {}",
            self.length.saturating_sub(elapsed).as_secs(),
            now(&tally.accepted),
            self.confirmed,
            now(&tally.ok),
            now(&tally.info),
            if faults.is_empty() { "no fault".to_owned() } else { faults.join(", ") }
        );
        let (before, after) = if self.on_terminal { ("\r\x1b[2K", "") } else { ("", "\n") };
        // Nobody may be looking.
        drop(write!(std::io::stderr(), "{before}{line:.150}{after}"));
    }

    pub(super) fn end(&self) {
        if self.is_live && self.on_terminal {
            drop(write!(std::io::stderr(), "\r\x1b[2K"));
        }
    }
}

async fn confirmed(url: &str) -> Option<i64> {
    let ask = async {
        let mut conn = PgConnection::connect(url).await?;
        let count = "SELECT count(*) FROM projection.orders WHERE status = 'CONFIRMED'";
        sqlx::query_scalar(count).fetch_one(&mut conn).await
    };
    tokio::time::timeout(ANSWER_WITHIN, ask).await.ok()?.ok()
}
