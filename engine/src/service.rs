//! What a service tells the engine: which topics, which states, which rules, which effects.
//!
//! The engine calls these functions in the order of a batch (DESIGN §2): decode, load, then decide and evolve for each
//! input, save; and in the order of a fold: decode, load, evolve, save. It knows no business word itself.

use std::future::Future;
use std::time::Duration;

use events::codec::{Codec, DecodeError, EncodeError};
use events::partition::partition_of;
use events::record::{CommandRef, Recorded, SetBy};
use events::time::Timestamp;
use sqlx::PgConnection;

/// How records of an input topic identify themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicKind {
    /// Written by many HTTP processes; repeats are found by command ID.
    Commands,
    /// Another service's own topic; repeats and holes are found by `ce_sequence`.
    Events,
}

/// An input topic, without prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputTopic {
    /// Name, such as `order.events`.
    pub name: &'static str,
    /// How its records identify themselves.
    pub kind: TopicKind,
}

/// The fixed facts of a service.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// Crate name = consumer group = `ce_source` without slash.
    pub name: &'static str,
    /// The 3-bit service number of its Snowflake IDs.
    pub number: u8,
    /// Input topics. The set changes only with a full stop of the service (PITFALLS P1.3).
    pub inputs: &'static [InputTopic],
    /// The events topic that its processors write.
    pub events_topic: &'static str,
    /// The input topic whose facts are folded into a read model of this service, if one is.
    pub read_model: Option<&'static str>,
    /// Number of the projection: a changed `evolve` or projection table is a new one.
    pub projection_version: i32,
    /// Tables of the projection that `evolve` writes, with the columns that order their rows; for digests.
    pub tables: &'static [Table],
}

/// A table of the projection.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Unqualified name.
    pub name: &'static str,
    /// Its primary key, comma separated.
    pub key: &'static str,
    /// True for a read model of a foreign topic, which is no fold of own events.
    pub read_model: bool,
}

/// A decoded record of an input topic.
#[derive(Debug)]
pub struct Decoded<I> {
    /// What the service will decide on.
    pub input: I,
    /// The aggregate's ID in the body; a command whose key is another one is strange.
    pub key: i64,
    /// The command, when it is one.
    pub command: Option<CommandRef>,
}

/// What the engine must know of an event to write and index it.
#[derive(Debug)]
pub struct About {
    /// Full name of its type.
    pub type_name: &'static str,
    /// The aggregate's ID: the key.
    pub key: i64,
    /// The order, where the event is about one.
    pub correlation: Option<i64>,
    /// The command that caused it, if one did.
    pub command: Option<CommandRef>,
    /// The reason, when it refuses or rejects that command.
    pub refused: Option<String>,
}

/// A record, timer or answer on which `decide` erred. (A refused command is no failure, but an event.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// Stable code, upper case.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Names an effect that a state asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectMark {
    /// The aggregate's ID.
    pub key: i64,
    /// Which of its effects, such as `charge`.
    pub kind: &'static str,
    /// The event that set it: it must be acknowledged before the effect starts.
    pub set_by: SetBy,
    /// Not before this time, and then only when the processor has read what was there by then.
    pub not_before: Option<Timestamp>,
}

/// One try of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// 1 for the first try.
    pub number: u32,
    /// True when an earlier try cannot be excluded: ask by key before calling again.
    pub may_have_called: bool,
    /// Time of this try, from Postgres' clock.
    pub now: Timestamp,
}

/// What came of one try.
#[derive(Debug)]
pub enum Outcome<I> {
    /// A final answer, as an input for `decide`.
    Answer(I),
    /// The other side has it and will answer later; ask again after this time. Uses up no attempt.
    Pending {
        /// When to ask.
        ask_after: Duration,
    },
    /// It was reached and said no for now; uses up an attempt. A dead letter when there is none left.
    Failed {
        /// Stable code, upper case.
        code: &'static str,
        /// For people.
        message: String,
    },
    /// It was not reached, or did not answer; uses up no attempt, however long that lasts.
    Unreachable {
        /// For people.
        message: String,
    },
}

/// When timers may fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Timers due before this rest until the grace after the assignment is over; normally the start of time.
    pub from: Timestamp,
    /// Up to here the processor has read all its inputs.
    pub until: Timestamp,
    /// At most this many.
    pub limit: i64,
}

/// A due timer.
#[derive(Debug)]
pub struct DueTimer<I> {
    /// The aggregate's ID.
    pub key: i64,
    /// What to decide on; the event that follows must move the timer.
    pub input: I,
    /// The event that set it.
    pub set_by: SetBy,
}

/// Which partition a key is of.
#[derive(Debug, Clone, Copy)]
pub struct Homes {
    /// How many partitions every topic has.
    pub partitions: i32,
}

impl Homes {
    /// The partition on which everything about this key is.
    #[must_use]
    pub fn of(self, key: i64) -> i32 {
        partition_of(key.to_string().as_bytes(), self.partitions)
    }
}

/// A service as the engine sees it. Everything that reads or writes takes the caller's connection and transaction.
pub trait Service: Send + Sync + 'static {
    /// A decoded record, a due timer, the answer of an effect.
    type Input: Send + Sync + 'static;
    /// An event of its own.
    type Event: Send + Sync + 'static;
    /// The states a batch works on: loaded, evolved, saved.
    type States: Send;
    /// Everything a try of an effect needs.
    type Effect: Send + Sync + 'static;

    /// The fixed facts.
    fn describe(&self) -> Description;

    /// Decodes a value of an input topic (named without prefix); `at` is its `ce_time`, or Kafka's. `None`: no interest in this type; it is passed over.
    ///
    /// # Errors
    /// [`DecodeError`]; the engine classifies it (DESIGN §5).
    fn decode(
        &self,
        codec: &Codec,
        topic: &str,
        value: &[u8],
        at: Timestamp,
    ) -> Result<Option<Decoded<Self::Input>>, DecodeError>;

    /// Full name of the type that `decode` would find in a value, to be compared with its `ce_type`: a damaged schema ID
    /// may name another type whose bytes look alike. `None` where it cannot be told.
    fn type_of<'a>(&'a self, codec: &'a Codec, topic: &str, value: &[u8]) -> Option<&'a str> {
        codec.open(topic, value).ok().map(|(schema, _)| schema.full_name())
    }

    /// Which kind of aggregate a record of this type is about: two kinds may have the same number, and a held record keeps
    /// only its own aggregate waiting. `None` where the type does not tell; such a record keeps all kinds of its key.
    fn kind(&self, topic: &str, type_name: &str) -> Option<&'static str>;

    /// Decodes a value of the own events topic.
    ///
    /// # Errors
    /// [`DecodeError`]; in a fold it stops the rebuild.
    fn decode_own(&self, codec: &Codec, value: &[u8]) -> Result<Self::Event, DecodeError>;

    /// Encodes an own event.
    ///
    /// # Errors
    /// [`EncodeError`]: a broken build.
    fn encode(&self, codec: &Codec, event: &Self::Event) -> Result<Vec<u8>, EncodeError>;

    /// What the engine must know of an event.
    fn about(&self, event: &Self::Event) -> About;

    /// Loads the states that these inputs (a batch) or events (a fold) need; takes the locks they need, in key order.
    fn load(
        &self,
        conn: &mut PgConnection,
        inputs: &[&Self::Input],
        events: &[&Self::Event],
    ) -> impl Future<Output = Result<Self::States, sqlx::Error>> + Send;

    /// True when processors of several instances lock the same rows: then a transaction must take all of its locks in one
    /// order, also where it loads its inputs in steps.
    fn locks_shared_rows(&self) -> bool {
        false
    }

    /// Judges one input. A refused command is an event; `None` is for inputs that change nothing.
    ///
    /// # Errors
    /// [`Failure`] holds the record; a timer or an answer backs off.
    fn decide(
        &self,
        states: &Self::States,
        input: &Self::Input,
        now: Timestamp,
    ) -> Result<Option<Self::Event>, Failure>;

    /// The event that refuses, for this reason, a command which an operator discards; that one's `sub` is the last argument.
    /// `None` for an input that is no command.
    fn refuse(&self, states: &Self::States, input: &Self::Input, reason: &str, operator: &str) -> Option<Self::Event>;

    /// False for types whose records may only be redriven: what they say cannot be unsaid.
    fn may_be_discarded(&self, _type_name: &str) -> bool {
        true
    }

    /// The input that ends an effect of this name which an operator discards. `None`: it can only be redriven.
    fn discard_effect(&self, _key: i64, _effect: &str) -> Option<Self::Input> {
        None
    }

    /// One step of the fold. No clock, no randomness, no other table.
    fn evolve(&self, states: &mut Self::States, event: &Recorded<Self::Event>);

    /// Folds a fact of the read model's topic. Called in order, each fact once.
    fn observe(&self, _states: &mut Self::States, _fact: &Self::Input) {}

    /// Writes the states that changed. They may be of several partitions: `homes` tells which a key is of.
    fn save(
        &self,
        conn: &mut PgConnection,
        homes: Homes,
        states: &Self::States,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Timers of this partition that are due within the window, earliest first; those of the keys in `resting` rest.
    fn due_timers(
        &self,
        _conn: &mut PgConnection,
        _partition: i32,
        _window: Window,
        _resting: &[i64],
    ) -> impl Future<Output = Result<Vec<DueTimer<Self::Input>>, sqlx::Error>> + Send {
        async { Ok(Vec::new()) }
    }

    /// The earliest timer of this partition, due or not, those of the keys in `resting` aside.
    fn next_timer(
        &self,
        _conn: &mut PgConnection,
        _partition: i32,
        _resting: &[i64],
    ) -> impl Future<Output = Result<Option<Timestamp>, sqlx::Error>> + Send {
        async { Ok(None) }
    }

    /// The timers that the evolved states of this batch carry, by key.
    fn timers_set(&self, _states: &Self::States) -> Vec<(i64, Timestamp)> {
        Vec::new()
    }

    /// The effects that the evolved states of this batch ask for, set by events of this batch.
    fn effects_set(&self, _states: &Self::States) -> Vec<EffectMark> {
        Vec::new()
    }

    /// All effects that the states of this partition ask for; read at an assignment.
    fn effects_due(
        &self,
        _conn: &mut PgConnection,
        _partition: i32,
    ) -> impl Future<Output = Result<Vec<EffectMark>, sqlx::Error>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Reads what a try needs, for those of the marks that are still asked for by the same events: just before they start,
    /// and in a batch that must know whether a dead one is still asked for.
    fn effects_read(
        &self,
        _conn: &mut PgConnection,
        _partition: i32,
        _marks: &[EffectMark],
    ) -> impl Future<Output = Result<Vec<(EffectMark, Self::Effect)>, sqlx::Error>> + Send {
        async { Ok(Vec::new()) }
    }

    /// One try of an effect: the call to the outside. Bounded in time by the service (at most 30 s).
    fn perform(&self, effect: &Self::Effect, attempt: Try) -> impl Future<Output = Outcome<Self::Input>> + Send;
}
