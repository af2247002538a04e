//! Takes commands in: one command per idempotency key, appended to the log before it is answered, and the same answer
//! for ever.
//!
//! The order of steps is the point (DESIGN §6, H17): the row with the command's bytes, the append, the answer, the reply,
//! all in a task that a client's disconnect does not cancel. A repeat finds the row or, for ever, the command in
//! `projection.commands`. What a command means is the service's; the table is [`crate::idempotency`]'s.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use engine::append::{AppendError, NewRecord};
use engine::clock;
use engine::failpoint::{self, Injected};
use engine::wait::Decided;
use events::envelope::{Envelope, Headers};
use events::id::CommandId;
use events::record::CommandRef;
use events::time::Timestamp;
use sqlx::PgPool;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::answer::{Accepted, Answer, Ids};
use crate::facts::Facts;
use crate::group::{AWAY_RETRY_SECONDS, Group};
use crate::idempotency::{self, Answered, Claim, Claimed, Key, Known};
use crate::log::Log;
use crate::metrics::HttpMetrics;
use crate::problem::Problem;
use crate::telemetry::Trace;

/// When a client whose command has an unknown outcome may ask again: by then the next request takes over.
const UNKNOWN_RETRY_SECONDS: u64 = 5;

/// What a client wants, before it is a command.
#[derive(Debug)]
pub struct Intent<'a> {
    /// The head of the request.
    pub facts: &'a Facts,
    /// The token's `sub`, or `gateway`.
    pub caller: &'a str,
    /// The canonical body ([`crate::json::Json::canonical`]); empty where there is none.
    pub body: String,
    /// The aggregate; `None` gives it a new ID.
    pub subject: Option<i64>,
    /// Makes the 202.
    pub answer: fn(Ids) -> Answer,
}

/// A command, encoded.
#[derive(Debug)]
pub struct Draft {
    /// Full name of its schema.
    pub type_name: &'static str,
    /// Avro in the wire format.
    pub value: Vec<u8>,
}

/// The way in for a service's commands; cheap to clone.
#[derive(Clone)]
pub struct Commands(Arc<Inner>);

struct Inner {
    pool: PgPool,
    log: Arc<dyn Log>,
    source: &'static str,
    topic: &'static str,
    metrics: HttpMetrics,
    claims: Group<Claim, Claimed>,
    answers: Group<Answered, ()>,
    runtime: Handle,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands").field("topic", &self.0.topic).finish_non_exhaustive()
    }
}

impl Commands {
    /// Starts the writers on the current runtime. `source` is the crate name of the service, `topic` its commands topic
    /// without prefix; the pool is one that processors do not use.
    #[must_use]
    pub fn start(
        pool: PgPool,
        log: Arc<dyn Log>,
        source: &'static str,
        topic: &'static str,
        metrics: HttpMetrics,
    ) -> Self {
        let (claiming, answering) = (pool.clone(), pool.clone());
        let claims = Group::start(move |claims| {
            let pool = claiming.clone();
            async move { idempotency::claim(&pool, claims).await }
        });
        let answers = Group::start(move |answers| {
            let pool = answering.clone();
            async move { idempotency::answer(&pool, answers).await }
        });
        let (runtime, tasks) = (Handle::current(), TaskTracker::new());
        Self(Arc::new(Inner { pool, log, source, topic, metrics, claims, answers, runtime, tasks }))
    }

    /// Waits until every command that was begun has its end; call it after the sites have stopped.
    pub async fn finish(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Makes the command of this key, or finds the one that it stands for, and appends it. `make` checks what only a new
    /// command must pass (does the product exist?) and encodes it; what it refuses is not remembered, and a known key is
    /// answered without asking it.
    ///
    /// # Errors
    /// 400 without a key; 409 while another request runs with it; 422 when it was used for something else; 503 when the
    /// outcome is unknown or something is away; what `make` refuses, when the key is new.
    pub async fn submit<M>(&self, intent: Intent<'_>, make: M) -> Result<Accepted, Problem>
    where
        M: AsyncFnOnce(i64, CommandRef) -> Result<Draft, Problem>,
    {
        self.check_open()?;
        let key = (intent.caller.to_owned(), intent.facts.key_hash()?);
        let fingerprint = intent.facts.fingerprint(&intent.body);
        let ids = self.new_ids(intent.subject).await?;
        let command = CommandRef {
            command_id: ids.command_id,
            caller: Some(key.0.clone()),
            key_hash: Some(key.1.clone()),
            fingerprint: Some(fingerprint.clone()),
        };
        let draft = match make(ids.subject, command).await {
            Ok(draft) => draft,
            Err(problem) => return self.known(&key, &fingerprint, intent.answer, problem).await,
        };
        let claim = Claim {
            key,
            fingerprint,
            subject: ids.subject,
            command_id: ids.command_id.0,
            headers: pack(&self.headers(ids, &draft, intent.facts.trace)),
            value: draft.value,
        };
        let (commands, answer) = (self.clone(), intent.answer);
        self.run(async move { commands.carry_out(claim, answer).await }).await
    }

    /// Appends a command that needs no key (PUT, DELETE): each request is a command of its own.
    ///
    /// # Errors
    /// 503 when the outcome is unknown or something is away; what `make` refuses.
    pub async fn submit_unkeyed<M>(&self, intent: Intent<'_>, make: M) -> Result<Accepted, Problem>
    where
        M: AsyncFnOnce(i64, CommandRef) -> Result<Draft, Problem>,
    {
        self.check_open()?;
        let ids = self.new_ids(intent.subject).await?;
        let command = CommandRef {
            command_id: ids.command_id,
            caller: Some(intent.caller.to_owned()),
            key_hash: None,
            fingerprint: None,
        };
        let draft = make(ids.subject, command).await?;
        let headers = self.headers(ids, &draft, intent.facts.trace);
        let (commands, answer) = (self.clone(), (intent.answer)(ids));
        self.run(async move {
            commands.append(ids.subject, headers, draft.value).await?;
            Ok(Accepted { ids, replayed: false, answer })
        })
        .await
    }

    /// Answers: at once with the 202, or, when the client prefers to wait and the command is its own, with what `show`
    /// makes of the decision. A replay is always the 202.
    ///
    /// # Errors
    /// What `show` makes of a refusal.
    pub async fn reply<S>(&self, accepted: Accepted, facts: &Facts, show: S) -> Result<HttpResponse, Problem>
    where
        S: AsyncFnOnce(Ids, Decided) -> Result<HttpResponse, Problem>,
    {
        let Some(timeout) = facts.wait.filter(|_| !accepted.replayed) else {
            return Ok(accepted.response());
        };
        match self.0.log.wait(accepted.ids.command_id, timeout).await {
            Some(decided) => show(accepted.ids, decided).await,
            None => Ok(accepted.response()),
        }
    }

    /// Who asked for an aggregate that the projection does not have yet, and when: it is accepted, not unknown. Only
    /// commands with a key are found.
    ///
    /// # Errors
    /// 503 when the database is away.
    pub async fn accepted_by(&self, subject: i64) -> Result<Option<(String, Timestamp)>, Problem> {
        let first = idempotency::first_of(&self.0.pool, subject).await?;
        Ok(first.map(|(caller, millis)| (caller, Timestamp(millis))))
    }

    fn check_open(&self) -> Result<(), Problem> {
        match self.0.log.refuses() {
            None => Ok(()),
            Some(why) => {
                tracing::debug!(why, "a command was turned away");
                Err(Problem::unavailable("Commands are not taken now.", AWAY_RETRY_SECONDS))
            }
        }
    }

    async fn new_ids(&self, subject: Option<i64>) -> Result<Ids, Problem> {
        let ids = async {
            let command_id = CommandId(self.0.log.issue().await);
            let subject = match subject {
                Some(subject) => subject,
                None => self.0.log.issue().await,
            };
            Ids { subject, command_id }
        };
        // None are issued beyond a mark in the database, so an outage shows here first.
        let limit = Duration::from_secs(AWAY_RETRY_SECONDS);
        tokio::time::timeout(limit, ids).await.map_err(|_| {
            tracing::warn!("no ID was issued in time");
            Problem::unavailable("The service cannot reach its data now.", AWAY_RETRY_SECONDS)
        })
    }

    /// Runs a step that must not end with the connection, on the runtime that outlives the workers of the site.
    async fn run<T: Send + 'static>(
        &self,
        step: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let step = self.0.tasks.track_future(tracing::Instrument::in_current_span(step));
        match self.0.runtime.spawn(step).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "taking a command in ended early");
                Err(Problem::internal())
            }
        }
    }

    async fn carry_out(&self, claim: Claim, answer: fn(Ids) -> Answer) -> Result<Accepted, Problem> {
        let claimed = self.0.claims.ask(claim.clone()).await?;
        failpoint::reach("A2").await.map_err(injected)?;
        match claimed {
            Claimed::New => self.put_through(claim, answer).await,
            other => self.go_on(other, &claim.fingerprint, answer).await,
        }
    }

    /// With a key that is known already.
    async fn go_on(&self, claimed: Claimed, fingerprint: &str, answer: fn(Ids) -> Answer) -> Result<Accepted, Problem> {
        match claimed {
            Claimed::TakenOver(stored) => {
                tracing::info!(command.id = stored.command_id, "a command without an answer is taken over");
                self.put_through(stored, answer).await
            }
            other => self.settled(other, fingerprint, answer),
        }
    }

    async fn put_through(&self, claim: Claim, answer: fn(Ids) -> Answer) -> Result<Accepted, Problem> {
        let ids = Ids { subject: claim.subject, command_id: CommandId(claim.command_id) };
        let answer = answer(ids);
        failpoint::reach("A3").await.map_err(injected)?;
        self.append(claim.subject, unpack(&claim.headers)?, claim.value).await?;
        failpoint::reach("A5").await.map_err(injected)?;
        let answered = Answered { key: claim.key, location: answer.location.clone(), body: answer.body.clone() };
        if let Err(error) = self.0.answers.ask(answered).await {
            // The log has it and the answer is made from its IDs, so the row is only a shortcut that is missing.
            tracing::warn!(%error, command.id = ids.command_id.0, "an answer was given and not stored");
        }
        failpoint::reach("A6").await.map_err(injected)?;
        Ok(Accepted { ids, replayed: false, answer })
    }

    /// A known key is answered as ever, although `problem` speaks against a new command.
    async fn known(
        &self,
        key: &Key,
        fingerprint: &str,
        answer: fn(Ids) -> Answer,
        problem: Problem,
    ) -> Result<Accepted, Problem> {
        let (commands, key, fingerprint) = (self.clone(), key.clone(), fingerprint.to_owned());
        let find = async move {
            match idempotency::find(&commands.0.pool, &key, &fingerprint).await? {
                Some(claimed) => commands.go_on(claimed, &fingerprint, answer).await,
                None => Err(problem),
            }
        };
        self.run(find).await
    }

    fn settled(&self, claimed: Claimed, fingerprint: &str, answer: fn(Ids) -> Answer) -> Result<Accepted, Problem> {
        match claimed {
            Claimed::Known(known) if known.fingerprint == fingerprint => {
                self.0.metrics.replayed();
                Ok(replay(known, answer))
            }
            Claimed::Running { fingerprint: theirs, seconds_left } if theirs == fingerprint => {
                let detail = "A request with this Idempotency-Key is running.";
                let seconds = u64::try_from(seconds_left).unwrap_or(1);
                Err(Problem::conflict("IDEMPOTENCY_KEY_IN_USE", detail).retry_after(seconds))
            }
            Claimed::Known(_) | Claimed::Running { .. } => Err(Problem::unprocessable(
                "IDEMPOTENCY_KEY_REUSED",
                "This Idempotency-Key was used for another request.",
            )),
            Claimed::New | Claimed::TakenOver(_) => {
                tracing::error!("a claim that is to be carried out was taken for a settled one");
                Err(Problem::internal())
            }
        }
    }

    async fn append(&self, subject: i64, headers: Headers, value: Vec<u8>) -> Result<(), Problem> {
        let record = NewRecord { topic: self.0.topic, key: subject.to_string(), headers, value };
        match self.0.log.append(record).await {
            Ok(at) => {
                let (partition, offset) = (at.partition, at.offset);
                tracing::debug!(kafka.topic = at.topic, kafka.partition = partition, kafka.offset = offset, "appended");
                Ok(())
            }
            Err(AppendError::Unavailable(why)) => {
                tracing::warn!(why, "a command's outcome is unknown");
                let detail = "The outcome is not known yet. Repeat the request with the same Idempotency-Key.";
                Err(Problem::unavailable(detail, UNKNOWN_RETRY_SECONDS))
            }
            Err(AppendError::TooLarge) => Err(Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE)),
        }
    }

    fn headers(&self, ids: Ids, draft: &Draft, trace: Trace) -> Headers {
        Envelope {
            id: ids.command_id.0,
            type_name: draft.type_name,
            source: self.0.source,
            subject: &ids.subject.to_string(),
            time: clock::wall(),
            sequence: None,
            correlation: None,
            causation: None,
            cause: None,
            traceparent: Some(&trace.to_string()),
            avro: true,
        }
        .headers()
    }
}

fn injected(error: Injected) -> Problem {
    tracing::warn!(%error, "a command's outcome is unknown");
    Problem::unavailable("The outcome is not known yet.", UNKNOWN_RETRY_SECONDS)
}

fn replay(known: Known, answer: fn(Ids) -> Answer) -> Accepted {
    let ids = Ids { subject: known.subject, command_id: CommandId(known.command_id) };
    let answer = match known.answer {
        Some((location, body)) => Answer { location, body },
        None => answer(ids),
    };
    Accepted { ids, replayed: true, answer }
}

/// Headers as they are kept in the row: every value is text.
fn pack(headers: &Headers) -> String {
    let texts = headers.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)));
    serde_json::to_string(&texts.collect::<Vec<_>>()).expect("a list of texts is JSON")
}

fn unpack(packed: &str) -> Result<Headers, Problem> {
    let texts: Vec<(String, String)> = serde_json::from_str(packed).map_err(|error| {
        tracing::error!(%error, "the headers of a stored command cannot be read");
        Problem::internal()
    })?;
    Ok(texts.into_iter().collect())
}
