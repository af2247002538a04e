//! A small service on the engine: sums per key, what was applied in which order, a timer and two effects.
//!
//! Its values are JSON, so that most tests need no registry. It knows no business word either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::migrate::{MigrationSet, Schema};
use engine::service::{
    About, Decoded, Description, DueTimer, EffectMark, Failure, Homes, InputTopic, Outcome, Service, Table, TopicKind,
    Try, Window,
};
use events::codec::{Codec, DecodeError, EncodeError, schema_id};
use events::id::{CommandId, EventId};
use events::record::{CommandRef, Recorded, SetBy};
use events::time::Timestamp;
use sqlx::migrate::Migrator;
use sqlx::{PgConnection, Row};

pub(crate) use crate::acts::{Act, Ask, Happened};
use crate::acts::{HAPPENED, asked};
use crate::outside::Outside;

pub(crate) const COMMANDS: &str = "toy.commands";
pub(crate) const FOREIGN: &str = "other.events";
pub(crate) const EVENTS: &str = "toy.events";
pub(crate) const NAME: &str = "toy-svc";
pub(crate) const COMMAND: &str = "toy.Command";
pub(crate) const NEWS: &str = "other.News";
/// The effects. Only the second may be discarded.
pub(crate) const EFFECTS: [&str; 2] = ["call", "text"];
/// What their answers leave in the history.
const ANSWERS: [&str; 2] = ["answer", "text"];

static TOY: Migrator = sqlx::migrate!("tests/it/migrations");
pub(crate) static MIGRATIONS: [MigrationSet; 1] =
    [MigrationSet { schema: Schema::Projection, name: "toy", migrator: &TOY }];

static INPUTS: [InputTopic; 2] =
    [InputTopic { name: COMMANDS, kind: TopicKind::Commands }, InputTopic { name: FOREIGN, kind: TopicKind::Events }];
static TABLES: [Table; 2] =
    [Table { name: "entries", key: "key", read_model: false }, Table { name: "news", key: "key", read_model: true }];

#[derive(Debug)]
pub(crate) enum Input {
    Command(Ask),
    News(Ask),
    Timer(i64),
    Answer(i64, usize, String),
}

impl Input {
    fn key(&self) -> i64 {
        match self {
            Self::Command(ask) | Self::News(ask) => ask.key,
            Self::Timer(key) | Self::Answer(key, ..) => *key,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    total: i64,
    history: Vec<String>,
    due: Option<(i64, Mark)>,
    calls: [Option<Mark>; 2],
}

type Mark = (i64, i64);

#[derive(Debug, Default)]
pub(crate) struct States {
    entries: BTreeMap<i64, Entry>,
    changed: BTreeSet<i64>,
    facts: BTreeMap<i64, i64>,
    timers: Vec<(i64, Timestamp)>,
    effects: Vec<EffectMark>,
}

/// The service; what it calls is scripted.
#[derive(Debug, Default)]
pub(crate) struct Toy {
    pub(crate) outside: Arc<Outside>,
    /// Folds the foreign topic into a read model.
    pub(crate) with_model: bool,
}

fn set_by((event, sequence): Mark) -> SetBy {
    SetBy { event_id: EventId(event), sequence }
}

fn mark(key: i64, effect: usize, call: Mark) -> EffectMark {
    EffectMark { key, kind: EFFECTS[effect], set_by: set_by(call), not_before: None }
}

impl Service for Toy {
    type Input = Input;
    type Event = Happened;
    type States = States;
    type Effect = (i64, usize);

    fn describe(&self) -> Description {
        Description {
            name: NAME,
            number: 6,
            inputs: &INPUTS,
            events_topic: EVENTS,
            read_model: self.with_model.then_some(FOREIGN),
            projection_version: 1,
            tables: &TABLES,
        }
    }

    fn decode(
        &self,
        _codec: &Codec,
        topic: &str,
        value: &[u8],
        _at: Timestamp,
    ) -> Result<Option<Decoded<Input>>, DecodeError> {
        if let Ok(schema) = schema_id(value) {
            return Err(DecodeError::UnknownSchema(schema));
        }
        let damaged = |error: serde_json::Error| match error.classify() {
            serde_json::error::Category::Syntax => DecodeError::NotAvro,
            _ => DecodeError::Damaged { type_name: COMMAND, reason: error.to_string() },
        };
        let ask: Ask = serde_json::from_slice(value).map_err(damaged)?;
        let key = ask.key;
        if topic == COMMANDS {
            let command_id = CommandId(ask.id);
            let command = CommandRef { command_id, caller: None, key_hash: None, fingerprint: None };
            return Ok(Some(Decoded { input: Input::Command(ask), key, command: Some(command) }));
        }
        Ok(Some(Decoded { input: Input::News(ask), key, command: None }))
    }

    fn type_of<'a>(&'a self, _codec: &'a Codec, topic: &str, value: &[u8]) -> Option<&'a str> {
        let ask: Ask = serde_json::from_slice(value).ok()?;
        let known = if topic == COMMANDS { COMMAND } else { NEWS };
        Some(if ask.kind == known { known } else { "toy.Other" })
    }

    fn kind(&self, _topic: &str, type_name: &str) -> Option<&'static str> {
        [COMMAND, NEWS].contains(&type_name).then_some("entry")
    }

    fn decode_own(&self, _codec: &Codec, value: &[u8]) -> Result<Happened, DecodeError> {
        serde_json::from_slice(value)
            .map_err(|error| DecodeError::Damaged { type_name: HAPPENED, reason: error.to_string() })
    }

    fn encode(&self, _codec: &Codec, event: &Happened) -> Result<Vec<u8>, EncodeError> {
        Ok(serde_json::to_vec(event).unwrap())
    }

    fn about(&self, event: &Happened) -> About {
        let command = event.command.map(|id| CommandRef {
            command_id: CommandId(id),
            caller: None,
            key_hash: None,
            fingerprint: None,
        });
        let refused = event.refused.clone();
        About { type_name: HAPPENED, key: event.key, correlation: Some(event.key), command, refused }
    }

    async fn load(
        &self,
        conn: &mut PgConnection,
        inputs: &[&Input],
        events: &[&Happened],
    ) -> Result<States, sqlx::Error> {
        self.outside.load(inputs.len());
        let keys: BTreeSet<i64> =
            inputs.iter().map(|input| input.key()).chain(events.iter().map(|event| event.key)).collect();
        let rows: Vec<sqlx::postgres::PgRow> = sqlx::query(
            "SELECT key, total, history, due_at, due_event, due_sequence, call_event, call_sequence, text_event,
                    text_sequence
             FROM entries WHERE key = ANY($1)",
        )
        .bind(keys.into_iter().collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
        let mut states = States::default();
        for row in rows {
            let number = |at: usize| row.try_get::<Option<i64>, _>(at);
            let (at, event, sequence) = (number(3)?, number(4)?, number(5)?);
            let due = at.zip(event).zip(sequence).map(|((at, event), sequence)| (at, (event, sequence)));
            let calls = [number(6)?.zip(number(7)?), number(8)?.zip(number(9)?)];
            let entry = Entry { total: row.try_get(1)?, history: row.try_get(2)?, due, calls };
            states.entries.insert(row.try_get(0)?, entry);
        }
        Ok(states)
    }

    fn locks_shared_rows(&self) -> bool {
        true
    }

    fn decide(&self, states: &States, input: &Input, now: Timestamp) -> Result<Option<Happened>, Failure> {
        let none = Entry::default();
        let entry = states.entries.get(&input.key()).unwrap_or(&none);
        let event = Happened { kind: HAPPENED.to_owned(), key: input.key(), ..Happened::default() };
        match input {
            Input::Command(ask) => Ok(Some(Happened { command: Some(ask.id), ..asked(ask, now, "command") })),
            Input::News(Ask { act: Act::Ignore, .. }) => Ok(None),
            Input::News(Ask { act: Act::Fail, .. }) if !self.outside.is_mended() => {
                Err(Failure { code: "BAD", message: "it cannot be applied".to_owned() })
            }
            Input::News(ask) => Ok(Some(asked(ask, now, "news"))),
            Input::Timer(_) if self.outside.refuses_timers() => {
                Err(Failure { code: "LATE", message: "the timer cannot be applied".to_owned() })
            }
            Input::Timer(_) => {
                let due = entry.due.is_some_and(|(at, _)| at <= now.0);
                Ok(due.then(|| Happened { what: "reminded".to_owned(), settles: true, ..event }))
            }
            Input::Answer(..) if self.outside.refuses_answers() => {
                Err(Failure { code: "ODD", message: "the answer cannot be applied".to_owned() })
            }
            Input::Answer(_, effect, text) => {
                let what = format!("{} {text}", ANSWERS[*effect]);
                Ok(entry.calls[*effect].map(|_| Happened { what, answers: Some(*effect), ..event }))
            }
        }
    }

    fn refuse(&self, _states: &States, input: &Input, reason: &str, operator: &str) -> Option<Happened> {
        let Input::Command(ask) = input else { return None };
        let refused = Some(reason.to_owned());
        let what = format!("command {}: {reason} by {operator}", ask.id);
        Some(Happened {
            kind: HAPPENED.to_owned(),
            key: ask.key,
            what,
            command: Some(ask.id),
            refused,
            ..Happened::default()
        })
    }

    fn discard_effect(&self, key: i64, effect: &str) -> Option<Input> {
        (effect == EFFECTS[1]).then(|| Input::Answer(key, 1, "discarded".to_owned()))
    }

    fn evolve(&self, states: &mut States, event: &Recorded<Happened>) {
        let happened = &event.event;
        let mark = (event.id.0, event.sequence);
        states.changed.insert(happened.key);
        let entry = states.entries.entry(happened.key).or_default();
        entry.total += happened.add;
        entry.history.push(happened.what.clone());
        if happened.settles {
            entry.due = None;
        }
        if let Some(at) = happened.due_at {
            entry.due = Some((at, mark));
            states.timers.push((happened.key, Timestamp(at)));
        }
        if let Some(effect) = happened.answers {
            entry.calls[effect] = None;
        }
        for effect in 0..happened.calls {
            entry.calls[effect] = Some(mark);
            states.effects.push(self::mark(happened.key, effect, mark));
        }
    }

    fn observe(&self, states: &mut States, fact: &Input) {
        if let Input::News(ask) = fact {
            states.facts.insert(ask.key, ask.id);
        }
    }

    async fn save(&self, conn: &mut PgConnection, homes: Homes, states: &States) -> Result<(), sqlx::Error> {
        for key in &states.changed {
            let entry = &states.entries[key];
            sqlx::query(
                "INSERT INTO entries (key, partition, total, history, due_at, due_event, due_sequence, call_event,
                                      call_sequence, text_event, text_sequence)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                 ON CONFLICT (key) DO UPDATE SET total = $3, history = $4, due_at = $5, due_event = $6,
                     due_sequence = $7, call_event = $8, call_sequence = $9, text_event = $10, text_sequence = $11",
            )
            .bind(key)
            .bind(homes.of(*key))
            .bind(entry.total)
            .bind(&entry.history)
            .bind(entry.due.map(|(at, _)| at))
            .bind(entry.due.map(|(_, mark)| mark.0))
            .bind(entry.due.map(|(_, mark)| mark.1))
            .bind(entry.calls[0].map(|mark| mark.0))
            .bind(entry.calls[0].map(|mark| mark.1))
            .bind(entry.calls[1].map(|mark| mark.0))
            .bind(entry.calls[1].map(|mark| mark.1))
            .execute(&mut *conn)
            .await?;
        }
        for (key, last) in &states.facts {
            sqlx::query("INSERT INTO news VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET last = $2")
                .bind(key)
                .bind(last)
                .execute(&mut *conn)
                .await?;
        }
        Ok(())
    }

    async fn due_timers(
        &self,
        conn: &mut PgConnection,
        partition: i32,
        window: Window,
        resting: &[i64],
    ) -> Result<Vec<DueTimer<Input>>, sqlx::Error> {
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT key, due_event, due_sequence FROM entries
             WHERE partition = $1 AND due_at >= $2 AND due_at <= $3 AND key <> ALL($5)
             ORDER BY due_at LIMIT $4",
        )
        .bind(partition)
        .bind(window.from.0)
        .bind(window.until.0)
        .bind(window.limit)
        .bind(resting)
        .fetch_all(conn)
        .await?;
        let timer =
            |(key, event, sequence)| DueTimer { key, input: Input::Timer(key), set_by: set_by((event, sequence)) };
        Ok(rows.into_iter().map(timer).collect())
    }

    async fn next_timer(
        &self,
        conn: &mut PgConnection,
        partition: i32,
        resting: &[i64],
    ) -> Result<Option<Timestamp>, sqlx::Error> {
        let (next,): (Option<i64>,) =
            sqlx::query_as("SELECT min(due_at) FROM entries WHERE partition = $1 AND key <> ALL($2)")
                .bind(partition)
                .bind(resting)
                .fetch_one(conn)
                .await?;
        Ok(next.map(Timestamp))
    }

    fn timers_set(&self, states: &States) -> Vec<(i64, Timestamp)> {
        states.timers.clone()
    }

    fn effects_set(&self, states: &States) -> Vec<EffectMark> {
        let asked = |marked: &&EffectMark| {
            let calls = states.entries[&marked.key].calls.iter().enumerate();
            calls.filter_map(|(effect, call)| Some(mark(marked.key, effect, (*call)?))).any(|mark| mark == **marked)
        };
        states.effects.iter().filter(asked).copied().collect()
    }

    async fn effects_due(&self, conn: &mut PgConnection, partition: i32) -> Result<Vec<EffectMark>, sqlx::Error> {
        let rows: Vec<(i64, i32, i64, i64)> = sqlx::query_as(
            "SELECT key, 0, call_event, call_sequence FROM entries WHERE partition = $1 AND call_event IS NOT NULL
             UNION ALL
             SELECT key, 1, text_event, text_sequence FROM entries WHERE partition = $1 AND text_event IS NOT NULL",
        )
        .bind(partition)
        .fetch_all(conn)
        .await?;
        let mark = |(key, effect, event, sequence): (_, i32, _, _)| {
            mark(key, usize::try_from(effect).unwrap(), (event, sequence))
        };
        Ok(rows.into_iter().map(mark).collect())
    }

    async fn effects_read(
        &self,
        conn: &mut PgConnection,
        partition: i32,
        marks: &[EffectMark],
    ) -> Result<Vec<(EffectMark, (i64, usize))>, sqlx::Error> {
        let mut due = self.effects_due(conn, partition).await?;
        due.retain(|mark| marks.contains(mark));
        let effect = |mark: EffectMark| (mark, (mark.key, usize::from(mark.kind == EFFECTS[1])));
        Ok(due.into_iter().map(effect).collect())
    }

    async fn perform(&self, (key, effect): &(i64, usize), attempt: Try) -> Outcome<Input> {
        let reply = self.outside.call((*key, EFFECTS[*effect]), attempt).await;
        reply.map_answer(|text| Input::Answer(*key, *effect, text))
    }
}
