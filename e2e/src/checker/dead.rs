//! I12: every input of every service came to something: applied, of no interest, a repeat, or a letter that tells where it is.
//!
//! Nothing is held at the end, and what is dead is exactly what cannot be right, with its bytes, or is waiting for an operator.
//! Records that a position has not passed are I10's, and are not looked at here.

use std::collections::{BTreeMap, HashMap, HashSet};

use events::envelope::{Cause, name};
use serde_json::json;

use super::letters::{Letter, Step};
use super::log::{Fact, Kind, Log, Place, SERVICES, Service, is_commands, number, shown, text};
use super::witness::{Findings, Witness};
use crate::evidence::Entry;

mod ignored;

/// What is known about the inputs of a service.
struct Fates<'l> {
    service: &'static Service,
    letters: HashMap<&'l Place, Vec<&'l Letter<'l>>>,
    applied: HashMap<Place, &'l Fact<'l>>,
    /// Own events and events of others about a key.
    stories: &'l ignored::Stories<'l>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Applied,
    Ignored,
    Repeat,
    Settled,
    Dead,
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Ignored => "ignored",
            Self::Repeat => "repeats",
            Self::Settled => "settled",
            Self::Dead => "dead",
        }
    }
}

pub(super) fn letters(log: &Log<'_>) -> Findings {
    let mut findings =
        Findings::new("I12", "records = applied + ignored + repeats + settled + dead; dead = strange, unchanged");
    let stories = ignored::Stories::of(log);
    for service in &SERVICES {
        let fates = Fates::of(log, service, &stories);
        for topic in service.inputs {
            let kinds = log.kinds.get(topic).map_or(&[][..], Vec::as_slice);
            let read = passed(log, service, topic);
            for (entry, kind) in log.folder.topic(topic).iter().zip(kinds) {
                if read.get(&entry.partition).is_none_or(|next| entry.offset >= *next) {
                    continue;
                }
                findings.count("inputs", 1);
                match fates.judge(topic, entry, *kind) {
                    Ok(fate) => findings.count(fate.name(), 1),
                    Err(what) => {
                        let place = format!("{topic}/{}/{}", entry.partition, entry.offset);
                        findings
                            .violated(format!("{}: {place} {what}", service.name), || fates.witness(log, topic, entry));
                    }
                }
            }
        }
        fates.rows(log, &mut findings);
    }
    unchanged(log, &mut findings);
    injected(log, &mut findings);
    findings
}

/// How far a service has read a topic.
fn passed(log: &Log<'_>, service: &Service, topic: &str) -> BTreeMap<i32, i64> {
    let rows = log.folder.table(service.name, "engine.positions").iter();
    let of = rows.filter(|row| text(row, "topic").is_some_and(|named| log.bare(named) == topic));
    of.filter_map(|row| Some((i32::try_from(number(row, "partition")?).ok()?, number(row, "next_offset")?))).collect()
}

impl<'l> Fates<'l> {
    fn of(log: &'l Log<'_>, service: &'static Service, stories: &'l ignored::Stories<'l>) -> Self {
        let mut letters: HashMap<&Place, Vec<&Letter<'_>>> = HashMap::new();
        let about_records = |letter: &&Letter<'_>| letter.service == service.name && letter.effect.is_none();
        for letter in log.letters.iter().filter(about_records) {
            letters.entry(&letter.source).or_default().push(letter);
        }
        let mut applied = HashMap::new();
        for fact in log.facts.iter().filter(|fact| fact.topic == service.events) {
            if let Some(Cause::Record(source)) = &fact.cause {
                let place = (log.bare(&source.topic).to_owned(), source.partition, source.offset);
                applied.entry(place).or_insert(fact);
            }
        }
        Self { service, letters, applied, stories }
    }

    fn letters(&self, place: &Place) -> &[&'l Letter<'l>] {
        self.letters.get(place).map_or(&[], Vec::as_slice)
    }

    fn judge(&self, topic: &str, entry: &Entry, kind: Kind) -> Result<Fate, &'static str> {
        let place = (topic.to_owned(), entry.partition, entry.offset);
        let (letters, fact) = (self.letters(&place), self.applied.get(&place));
        let last = self.last(&place);
        match (kind, last, fact) {
            (Kind::Repeat(_) | Kind::Strange, _, Some(_)) => Err("is a repeat or strange, and was applied"),
            // A second copy of a command may have waited behind the first, and then it is settled.
            (Kind::Repeat(_), None | Some(Step::Settled), None) => Ok(Fate::Repeat),
            (Kind::Repeat(_), Some(_), None) if is_commands(topic) => Err("is a repeat that is still kept"),
            (Kind::Repeat(_), Some(_), None) => Err("is a repeat, and has a letter"),
            (Kind::Strange, None, None) => Err("is strange, and has no dead letter"),
            (Kind::Damaged, None, _) => Err("cannot be read, and has no letter"),
            (Kind::Strange, Some(_), None) if !letters.iter().any(|letter| letter.dlq) => {
                Err("is strange, and has no dead letter")
            }
            (Kind::First, None, Some(_)) => Ok(Fate::Applied),
            (Kind::First | Kind::Damaged, Some(_), Some(fact)) => {
                let by_operator = fact.entry.text("operator-sub").is_some();
                let died = letters.iter().any(|letter| letter.step == Step::Died);
                if died && !by_operator { Err("died, and was applied without an operator") } else { Ok(Fate::Applied) }
            }
            (Kind::First, None, None) => {
                let ignorable = self.stories.ignorable(self.service, topic, entry);
                if ignorable { Ok(Fate::Ignored) } else { Err("had to be applied, and left nothing") }
            }
            (_, Some(Step::Settled), None) => Ok(Fate::Settled),
            (Kind::First, Some(Step::Died), None) if self.is_of_no_use(&place) => {
                Err("can be read, and died as strange")
            }
            (_, Some(Step::Died), None) => Ok(Fate::Dead),
            (_, Some(Step::Held | Step::Failed), None) => Err("is still held"),
        }
    }

    /// What the letters of a record come to.
    fn last(&self, place: &Place) -> Option<Step> {
        let letters = self.letters(place);
        let has = |step| letters.iter().any(|letter| letter.step == step);
        [Step::Settled, Step::Died, Step::Failed, Step::Held].into_iter().find(|step| has(*step))
    }

    fn is_of_no_use(&self, place: &Place) -> bool {
        self.letters(place).iter().any(|letter| letter.dlq && matches!(letter.class, "strange" | "poison"))
    }

    /// The table of held records has the dead ones and no others.
    fn rows(&self, log: &Log<'_>, findings: &mut Findings) {
        let name = "projection.held";
        if !log.folder.tables.get(self.service.name).is_some_and(|tables| tables.contains_key(name)) {
            return;
        }
        let (mut kept, mut effects) = (HashSet::new(), HashSet::new());
        for row in log.folder.table(self.service.name, name) {
            let place = (
                log.bare(text(row, "topic").unwrap_or_default()).to_owned(),
                number(row, "partition").and_then(|partition| i32::try_from(partition).ok()).unwrap_or(-1),
                number(row, "source_offset").unwrap_or(-1),
            );
            if let Some(effect) = text(row, "effect").filter(|effect| !effect.is_empty()) {
                effects.insert((place, effect.to_owned()));
                continue;
            }
            let over = self.applied.contains_key(&place) || self.last(&place).is_none_or(|step| step == Step::Settled);
            if over {
                findings.violated(
                    format!("{}: {place:?} is kept, but the log is through with it", self.service.name),
                    || Witness::default().with_rows([shown(self.service.name, name, row)]),
                );
            }
            kept.insert(place);
        }
        let open = self.letters.keys().filter(|place| {
            !self.applied.contains_key(**place) && self.last(place) != Some(Step::Settled) && !kept.contains(**place)
        });
        for place in open {
            findings.violated(format!("{}: {place:?} has a letter, but no row", self.service.name), || {
                Witness::of_log(self.letters(place).iter().map(|letter| log.show(&topic_of(letter), letter.entry)))
            });
        }
        self.effects(log, findings, &effects);
    }

    /// A dead effect is kept until an event of its key ends it.
    fn effects(&self, log: &Log<'_>, findings: &mut Findings, kept: &HashSet<(Place, String)>) {
        let mut announced = HashSet::new();
        for letter in log.letters.iter().filter(|letter| letter.service == self.service.name) {
            let Some(effect) = letter.effect else { continue };
            let named = (letter.source.clone(), effect.to_owned());
            let is_kept = kept.contains(&named);
            announced.insert(named);
            let mut events = log.facts.iter().filter(|fact| fact.topic == self.service.events);
            let at = letter.entry.text(name::TIME);
            let ends = |entry: &Entry| entry.key == letter.entry.key && entry.text(name::TIME) >= at;
            if !is_kept && !events.any(|fact| ends(fact.entry)) {
                let what = format!("{}: {effect} of {:?} died, and nothing ended it", self.service.name, letter.source);
                findings.violated(what, || Witness::of_log([log.show(&topic_of(letter), letter.entry)]));
            }
        }
        for (place, effect) in kept.difference(&announced) {
            let what = format!("{}: {effect} of {place:?} is kept, and has no dead letter", self.service.name);
            findings.violated(what, || Witness::default().with_rows([json!({"effect": effect})]));
        }
    }

    fn witness(&self, log: &Log<'_>, topic: &str, entry: &Entry) -> Witness {
        let place = (topic.to_owned(), entry.partition, entry.offset);
        let letters = self.letters(&place).iter().map(|letter| log.show(&topic_of(letter), letter.entry));
        let fact = self.applied.get(&place).map(|fact| log.show(fact.topic, fact.entry));
        Witness::of_log([log.show(topic, entry)].into_iter().chain(letters).chain(fact))
    }
}

fn topic_of(letter: &Letter<'_>) -> String {
    format!("{}.{}", letter.service, if letter.dlq { "dlq" } else { "retry" })
}

/// Each letter lies on the right topic, beside its source, names it, and holds its bytes.
fn unchanged(log: &Log<'_>, findings: &mut Findings) {
    let places = log.places();
    findings.count("letters", log.letters.len());
    for letter in &log.letters {
        let (topic, partition, offset) = &letter.source;
        let original = places.get(&(topic.as_str(), *partition, *offset));
        let read = SERVICES.iter().any(|service| {
            service.name == letter.service
                && (service.inputs.contains(&topic.as_str()) || (letter.class == "effect" && service.events == topic))
        });
        let what = if letter.dlq != (letter.step == Step::Died) {
            Some("lies on the wrong topic")
        } else if !letter.agrees(&log.folder.run.prefix) {
            Some("names another source in its failure headers than in its cause")
        } else if !read || *partition != letter.entry.partition {
            Some("is about a record that its writer does not read there")
        } else {
            match original {
                None => Some("is about a record that is nowhere"),
                Some((_, original)) => letter.differs(original).map(|part| match part {
                    "value" => "holds another value than its source",
                    "key" => "holds another key than its source",
                    _ => "holds other headers than its source",
                }),
            }
        };
        if let Some(what) = what {
            let own = topic_of(letter);
            let place = format!("{own}/{}/{}", letter.entry.partition, letter.entry.offset);
            findings.violated(format!("the letter at {place} {what}"), || {
                let source = original.map(|(_, original)| log.show(topic, original));
                Witness::of_log([log.show(&own, letter.entry)].into_iter().chain(source))
            });
        }
    }
}

/// What the run appended is dead at every reader; and nobody else appended anything strange.
fn injected(log: &Log<'_>, findings: &mut Findings) {
    if log.folder.injected.is_empty() {
        return;
    }
    let places = log.places();
    let mut known = HashSet::new();
    for one in log.folder.injected.iter().filter(|one| one.class != "repeat") {
        let place: Place = (one.topic.clone(), one.partition, one.offset);
        findings.count("injected", 1);
        for service in SERVICES.iter().filter(|service| service.inputs.contains(&one.topic.as_str())) {
            let dead = log.letters.iter().filter(|letter| {
                letter.dlq
                    && letter.service == service.name
                    && letter.source == place
                    && letter.entry.value == one.value
            });
            if dead.count() == 0 {
                findings.violated(format!("{}: injected {place:?} is not among the dead", service.name), || {
                    let entry = places.get(&(one.topic.as_str(), one.partition, one.offset));
                    Witness::of_log(entry.map(|(_, entry)| log.show(&one.topic, entry))).with_outside([json!(one)])
                });
            }
        }
        known.insert(place);
    }
    for letter in log.letters.iter().filter(|letter| letter.dlq && letter.class == "strange") {
        if !known.contains(&letter.source) {
            findings.violated(format!("{:?} is dead as strange, but was not injected", letter.source), || {
                Witness::of_log([log.show(&topic_of(letter), letter.entry)])
            });
        }
    }
}
