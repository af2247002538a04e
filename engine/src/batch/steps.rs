//! A transaction in which something is likely to be refused: its inputs are applied in steps, each behind a savepoint, and
//! what Postgres refuses is looked for within its step (ADR 9). So a refusal costs a step, not the transaction.
//!
//! A step costs questions to Postgres. So only what has just met a refusal goes this way ([`crate::refusals`]), and held
//! records that are tried again; every other transaction is one step without a savepoint.

use std::collections::HashSet;

use events::id::CommandId;
use events::time::Timestamp;
use sqlx::PgConnection;
use sqlx::postgres::PgDatabaseError;
use tracing::info;

use super::fill::{Left, due_timers, reached};
use super::search::Search;
use super::{BatchError, Part, database};
use crate::batch_store::{self, TakenCommand};
use crate::decision::{Decided, Decision};
use crate::item::Item;
use crate::letter::{Class, Flaw};
use crate::service::{DueTimer, Service};
use crate::shared::Shared;

/// Inputs that go into one step. A refusal costs about as much again; each step costs five questions to Postgres.
const STEP: usize = 100;
/// Held records go into steps of their own, ten at once.
const RETRY: usize = STEP / 10;

/// What is deferred would speak at the COMMIT, when nobody can tell whose it is.
const FIRST: &str = "SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT step";
const NEXT: &str = "RELEASE SAVEPOINT step; SAVEPOINT step";
const UNDO: &str = "ROLLBACK TO SAVEPOINT step";

/// Where a transaction stands.
pub(super) struct Steps<'a, S: Service> {
    shared: &'a Shared<S>,
    conn: &'a mut PgConnection,
    now: Timestamp,
    parts: &'a [&'a Part<S::Input>],
    /// Commands that were taken before, in this transaction or an earlier one.
    seen: HashSet<CommandId>,
    /// What was decided, by part.
    decided: Vec<Decided>,
    left: Left,
    /// Nothing was written since the last savepoint; `None` before the first.
    clean: Option<bool>,
}

/// One thing that a transaction takes in.
struct One<'a, I> {
    /// The place of its part.
    part: usize,
    what: Input<'a, I>,
}

enum Input<'a, I> {
    /// With its place in the batch.
    Item(usize, &'a Item<I>),
    Timer(&'a DueTimer<I>),
}

impl<I> One<'_, I> {
    fn input(&self) -> Option<&I> {
        match self.what {
            Input::Item(_, item) => item.what.input(),
            Input::Timer(timer) => Some(&timer.input),
        }
    }

    /// It was refused before, and is likely to be once more.
    fn is_retry(&self) -> bool {
        matches!(self.what, Input::Item(_, item) if item.what.is_retry())
    }

    /// What is passed over asks Postgres nothing.
    fn weight(&self) -> usize {
        match self.input() {
            None => 0,
            Some(_) if self.is_retry() => RETRY,
            Some(_) => 1,
        }
    }

    fn key(&self) -> Option<i64> {
        match self.what {
            Input::Item(_, item) => item.what.key(),
            Input::Timer(timer) => Some(timer.key),
        }
    }
}

impl<'a, S: Service> Steps<'a, S> {
    pub(super) fn new(
        shared: &'a Shared<S>,
        conn: &'a mut PgConnection,
        now: Timestamp,
        parts: &'a [&'a Part<S::Input>],
        seen: HashSet<CommandId>,
    ) -> Self {
        let decided = parts.iter().map(|part| Decided::new(&part.batch)).collect();
        Self { shared, conn, now, parts, seen, decided, left: Left::default(), clean: None }
    }

    /// Applies the items of all parts, then the timers that they leave due.
    pub(super) async fn apply(mut self) -> Result<(Vec<Decided>, Left), BatchError> {
        let parts = self.parts.iter().enumerate();
        let items = parts.flat_map(|(part, of)| {
            let items = of.batch.items.iter().enumerate();
            items.map(move |(index, item)| One { part, what: Input::Item(index, item) })
        });
        let items: Vec<_> = items.collect();
        self.lock(&items).await?;
        self.search(&items).await?;
        let due = due_timers(self.shared, self.conn, self.parts).await.map_err(database)?;
        let timers = due.iter().enumerate().flat_map(|(part, due)| {
            let timer = move |timer| One { part, what: Input::Timer(timer) };
            due.iter().map(timer)
        });
        self.search(&timers.collect::<Vec<_>>()).await?;
        Ok((self.decided, self.left))
    }

    /// Takes the locks of all steps at once, where others want the same rows: step by step, or when a step is cut, two
    /// transactions might wait for each other.
    async fn lock(&mut self, all: &[One<'_, S::Input>]) -> Result<(), BatchError> {
        let inputs: Vec<&S::Input> = all.iter().filter_map(One::input).collect();
        if !self.shared.service.locks_shared_rows() || inputs.is_empty() {
            return Ok(());
        }
        self.savepoint().await?;
        match self.shared.service.load(self.conn, &inputs, &[]).await.map_err(database) {
            Ok(_) => Ok(()),
            // Its step will tell which one it is.
            Err(BatchError::Fault(_)) => self.undo().await,
            Err(error) => Err(error),
        }
    }

    /// Applies these step by step. Where Postgres refuses a step, the one at fault is looked for.
    async fn search(&mut self, all: &[One<'_, S::Input>]) -> Result<(), BatchError> {
        let mut search = Search::new(all.iter().map(|one| (one.is_retry(), one.weight())), STEP);
        while let Some(range) = search.next() {
            match self.step(&all[range.clone()]).await {
                Ok(()) => search.passed(&range),
                Err(BatchError::Fault(error)) => {
                    self.undo().await?;
                    self.shared.refusals.met();
                    let suspect = named(&all[range.clone()], &error).map(|at| range.start + at);
                    if search.refused(range.clone(), suspect) {
                        self.refuse(&all[range.start], &error)?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Loads, decides and saves these; leaves everything here as it was if that fails.
    async fn step(&mut self, all: &[One<'_, S::Input>]) -> Result<(), BatchError> {
        self.savepoint().await?;
        let service = &self.shared.service;
        let inputs: Vec<&S::Input> = all.iter().filter_map(One::input).collect();
        let mut states = service.load(self.conn, &inputs, &[]).await.map_err(database)?;
        reached("C2").await?;
        let (mut seen, mut steps) = (self.seen.clone(), Vec::new());
        for of_part in all.chunk_by(|one, next| one.part == next.part) {
            let part = of_part[0].part;
            let before = self.decided[part].next();
            let mut decision = Decision::new(self.shared, self.parts[part], self.now, before, &mut seen);
            for one in of_part {
                match one.what {
                    Input::Item(index, item) => decision.take(index, item, &mut states)?,
                    Input::Timer(timer) => decision.fire(timer, &mut states)?,
                }
            }
            steps.push((part, decision.end()));
        }
        service.save(self.conn, self.shared.homes(), &states).await.map_err(database)?;
        // With the step: a caller's name may be what Postgres refuses.
        let taken: Vec<TakenCommand> = steps.iter_mut().flat_map(|(_, step)| std::mem::take(&mut step.taken)).collect();
        batch_store::save_commands(self.conn, &taken).await.map_err(database)?;
        reached("C3").await?;
        self.left.add(self.shared, &states);
        self.seen = seen;
        for (part, step) in steps {
            self.decided[part].add(step);
        }
        Ok(())
    }

    /// Postgres refuses this one, whatever stands before it: a record is held, an answer and a timer back off.
    fn refuse(&mut self, one: &One<'_, S::Input>, error: &sqlx::Error) -> Result<(), BatchError> {
        let (index, item) = match one.what {
            Input::Item(index, item) => (index, item),
            Input::Timer(timer) => return Err(BatchError::Timer(timer.key, error.to_string())),
        };
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        let flaw = Flaw { class: Class::Failed, code: code.into(), message: error.to_string() };
        let (part, before) = (self.parts[one.part], self.decided[one.part].next());
        let mut decision = Decision::new(self.shared, part, self.now, before, &mut self.seen);
        decision.hold(index, item, &flaw)?;
        let step = decision.end();
        self.decided[one.part].add(step);
        info!(kafka.partition = part.owned.partition, %error, "{} cannot be applied; it is held", item.what.describe());
        Ok(())
    }

    /// What follows can be undone.
    async fn savepoint(&mut self) -> Result<(), BatchError> {
        match self.clean.replace(false) {
            None => self.ask(FIRST).await,
            Some(false) => self.ask(NEXT).await,
            Some(true) => Ok(()),
        }
    }

    async fn undo(&mut self) -> Result<(), BatchError> {
        self.clean = Some(true);
        self.ask(UNDO).await
    }

    async fn ask(&mut self, statements: &'static str) -> Result<(), BatchError> {
        sqlx::raw_sql(statements).execute(&mut *self.conn).await.map_err(database)?;
        Ok(())
    }
}

/// The first among these whose key Postgres mentions: it shows the row that breaks a constraint.
fn named<I>(all: &[One<'_, I>], error: &sqlx::Error) -> Option<usize> {
    let detail = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.detail()?;
    let numbers = detail.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    let numbers: HashSet<i64> = numbers.collect();
    all.iter().position(|one| one.key().is_some_and(|key| numbers.contains(&key)))
}
