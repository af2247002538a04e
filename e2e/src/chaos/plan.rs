//! The plan of a run: which faults, to whom, when. It follows from the seed and the length alone.
//!
//! How often each kind comes is the table of the reliability plan, for ten minutes; shorter and longer runs take their share.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use engine::failpoint;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use testkit::proxy::{Faults, Way};

use super::faults::{Act, Fault, Link, Peer, Simulator, ToServer, Who};
use crate::stack::SERVICES;

/// Instances of each service that always run.
pub(super) const INSTANCES: usize = 2;

/// How often in ten minutes.
pub(super) const PER_TEN_MINUTES: [(&str, u32); 25] = [
    ("kill", 24),
    ("kill_both", 2),
    ("stop", 8),
    ("broker_kill", 4),
    ("broker_restart", 2),
    ("broker_stop", 1),
    ("postgres_quit", 6),
    ("postgres_backend", 6),
    ("cut_kafka", 4),
    ("cut_postgres", 4),
    ("half_open", 2),
    ("half_close", 2),
    ("slow_link", 4),
    ("slow_all", 1),
    ("thin_link", 2),
    ("swizzle", 2),
    ("reset_storm", 2),
    ("lost_commit", 6),
    ("lost_report", 4),
    ("rebalance", 2),
    ("registry_away", 2),
    ("gateway", 4),
    ("mail", 2),
    ("overload", 1),
    ("boundary", 12),
];

/// What happens at a boundary. Standing still lasts until the fault ends.
const AT_A_BOUNDARY: [&str; 4] = ["sigkill", "err", "stop", "delay:8000"];

/// The boundaries that a service may meet while it runs; E and C7 only when partitions change hands.
fn boundaries_of(service: &str) -> Vec<&'static str> {
    let own = match service {
        "order-svc" => "A",
        "payment-svc" => "G",
        "notify-svc" => "N",
        _ => "C",
    };
    let labels = failpoint::ALL.iter().map(|boundary| boundary.label);
    labels.filter(|label| ["C", "R", "E", own].iter().any(|kind| label.starts_with(kind))).collect()
}

/// What a kind of fault consists of, before it has its place in time.
type Draft = (String, Value, Vec<(Duration, Act)>);

struct Planner {
    random: StdRng,
    /// Longest a fault may last.
    room: Duration,
    /// Whose turn it is to be killed, so that each has its share.
    turns: Vec<&'static str>,
}

/// All faults, by their beginnings. They end within `length`.
pub(super) fn plan(seed: u64, length: Duration) -> Vec<Fault> {
    let mut planner = Planner { random: StdRng::seed_from_u64(seed), room: length.mul_f64(0.6), turns: Vec::new() };
    let mut faults = Vec::new();
    for (kind, often) in PER_TEN_MINUTES {
        let share = f64::from(often) * length.as_secs_f64() / 600.0;
        for number in 0..often.saturating_mul(1_000) {
            // The whole part for certain, the rest by chance.
            let chance = (share - f64::from(number)).clamp(0.0, 1.0);
            if chance == 0.0 || !planner.random.random_bool(chance) {
                break;
            }
            let (target, detail, acts) = planner.draft(kind);
            let mut fault = Fault { at: Duration::ZERO, kind, target, detail, acts };
            fault.at = length.saturating_sub(fault.lasts()).mul_f64(planner.random.random::<f64>());
            faults.push(fault);
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// How often each kind is planned.
pub(super) fn kinds(faults: &[Fault]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for fault in faults {
        *kinds.entry(fault.kind.to_owned()).or_default() += 1;
    }
    kinds
}

impl Planner {
    fn draft(&mut self, kind: &str) -> Draft {
        match kind {
            "kill" => self.kill(),
            "kill_both" => self.kill_both(),
            "stop" => self.stop(),
            "broker_kill" => self.server("broker", ToServer::Kill, 5.0),
            "broker_restart" => self.server("broker", ToServer::Terminate, 5.0),
            "broker_stop" => self.server("broker", ToServer::Stop, 15.0),
            "postgres_quit" => self.server("postgres", ToServer::Quit, 2.0),
            "postgres_backend" => {
                let service = self.service();
                (service.to_owned(), Value::Null, vec![(Duration::ZERO, Act::Backend(service))])
            }
            "cut_kafka" => self.cut(Peer::Kafka),
            "cut_postgres" => self.cut(Peer::Postgres),
            "half_open" => self.half_open(),
            "half_close" => {
                let link = self.link();
                (link.to_string(), Value::Null, vec![(Duration::ZERO, Act::HalfClose(vec![link]))])
            }
            "slow_link" => self.slow(false),
            "slow_all" => self.slow(true),
            "thin_link" => self.thin(),
            "swizzle" => self.swizzle(),
            "reset_storm" => self.reset_storm(),
            "lost_commit" => self.lost(Peer::Postgres),
            "lost_report" => self.lost(Peer::Kafka),
            "rebalance" => self.rebalance(),
            "registry_away" => self.registry_away(),
            "gateway" => self.gateway(),
            "mail" => {
                let mode = ["reject_4xx", "down"][self.random.random_range(0..2)];
                self.scripted(Simulator::Sink, mode)
            }
            "boundary" => self.boundary(),
            _ => {
                let lasts = self.seconds(30.0, 30.0);
                ("clients".to_owned(), json!({"times": 3}), vec![(Duration::ZERO, Act::Load(3)), (lasts, Act::Load(1))])
            }
        }
    }

    /// Uniform, and no longer than the run has room for.
    fn seconds(&mut self, from: f64, to: f64) -> Duration {
        let seconds = from + (to - from) * self.random.random::<f64>();
        Duration::from_secs_f64(seconds).min(self.room)
    }

    fn service(&mut self) -> &'static str {
        SERVICES[self.random.random_range(0..SERVICES.len())]
    }

    fn who(&mut self) -> Who {
        Who { service: self.service(), instance: self.random.random_range(0..INSTANCES) }
    }

    fn link(&mut self) -> Link {
        let to = if self.random.random() { Peer::Kafka } else { Peer::Postgres };
        Link { who: self.who(), to }
    }

    fn kill(&mut self) -> Draft {
        if self.turns.is_empty() {
            self.turns = SERVICES.to_vec();
            self.turns.shuffle(&mut self.random);
        }
        let service = self.turns.pop().unwrap_or(SERVICES[0]);
        let who = Who { service, instance: self.random.random_range(0..INSTANCES) };
        let away = self.seconds(0.0, 5.0);
        (who.to_string(), away_for(away), vec![(Duration::ZERO, Act::Kill(who)), (away, Act::Start(who))])
    }

    fn kill_both(&mut self) -> Draft {
        let service = self.service();
        let mut acts = Vec::new();
        for instance in 0..INSTANCES {
            let who = Who { service, instance };
            acts.push((Duration::ZERO, Act::Kill(who)));
            acts.push((self.seconds(0.0, 5.0), Act::Start(who)));
        }
        acts.sort_by_key(|(after, _)| *after);
        (service.to_owned(), Value::Null, acts)
    }

    /// Longer than the group waits for a silent member: what wakes up is no owner any more.
    fn stop(&mut self) -> Draft {
        let (who, away) = (self.who(), self.seconds(8.0, 20.0));
        (who.to_string(), away_for(away), vec![(Duration::ZERO, Act::Stop(who)), (away, Act::Continue(who))])
    }

    fn server(&mut self, name: &str, act: ToServer, most: f64) -> Draft {
        let to = if name == "broker" { Act::Broker } else { Act::Postgres };
        let (away, back) = match act {
            ToServer::Stop => (self.seconds(most, most), ToServer::Continue),
            // Until it has ended.
            ToServer::Terminate => (self.seconds(2.0, 2.0 + most), ToServer::Start),
            _ => (self.seconds(0.0, most), ToServer::Start),
        };
        (name.to_owned(), away_for(away), vec![(Duration::ZERO, to(act)), (away, to(back))])
    }

    fn cut(&mut self, to: Peer) -> Draft {
        let (link, lasts) = (Link { who: self.who(), to }, self.seconds(5.0, 15.0));
        let ways = self.random.random_range(0..3);
        let held = Way { hold: true, ..Way::default() };
        let (up, down) = (if ways == 1 { Way::default() } else { held }, if ways == 2 { Way::default() } else { held });
        let detail = json!({"up": up.hold, "down": down.hold, "seconds": lasts.as_secs_f64()});
        (link.to_string(), detail, between(lasts, vec![link], Faults { up, down, refuse: false }))
    }

    /// Cut for so long that the ends find out by themselves, and gone when it ends.
    fn half_open(&mut self) -> Draft {
        let (link, lasts) = (self.link(), self.seconds(20.0, 20.0));
        let held = Way { hold: true, ..Way::default() };
        let cut = Act::Change(vec![link], Box::new(Faults { up: held, down: held, refuse: false }));
        let acts = vec![(Duration::ZERO, cut), (lasts, Act::Reset(vec![link])), (lasts, Act::Heal(vec![link]))];
        (link.to_string(), away_for(lasts), acts)
    }

    fn slow(&mut self, all: bool) -> Draft {
        let one = self.link();
        let (links, lasts) = (if all { every_link() } else { vec![one] }, self.seconds(20.0, 20.0));
        let way = Way { delay: Duration::from_millis(100), jitter: Duration::from_millis(50), ..Way::default() };
        let target = if all { "all links".to_owned() } else { one.to_string() };
        (target, away_for(lasts), between(lasts, links, Faults { up: way, down: way, refuse: false }))
    }

    fn thin(&mut self) -> Draft {
        let (link, lasts) = (self.link(), self.seconds(15.0, 20.0));
        let way = Way { bytes_per_s: NonZeroU32::new(20_000), slice: NonZeroUsize::new(100), ..Way::default() };
        (link.to_string(), away_for(lasts), between(lasts, vec![link], Faults { up: way, down: way, refuse: false }))
    }

    /// Links go one by one over 5 s, and come back in another order.
    fn swizzle(&mut self) -> Draft {
        let mut links = every_link();
        links.shuffle(&mut self.random);
        links.truncate(self.random.random_range(3..=8));
        let held = Way { hold: true, ..Way::default() };
        let step = Duration::from_secs(5).mul_f64(1.0 / f64::from(u32::try_from(links.len()).unwrap_or(1)));
        let (mut acts, mut after) = (Vec::new(), Duration::ZERO);
        for link in &links {
            acts.push((after, Act::Change(vec![*link], Box::new(Faults { up: held, down: held, refuse: false }))));
            after += step;
        }
        let names: Vec<String> = links.iter().map(Link::to_string).collect();
        links.shuffle(&mut self.random);
        for link in links {
            acts.push((after, Act::Heal(vec![link])));
            after += step;
        }
        (names.join(" "), Value::Null, acts)
    }

    fn reset_storm(&mut self) -> Draft {
        let (service, lasts) = (self.service(), self.seconds(5.0, 5.0));
        let links: Vec<Link> = every_link().into_iter().filter(|link| link.who.service == service).collect();
        let mut acts = between(lasts, links.clone(), Faults { refuse: true, ..Faults::default() });
        acts.insert(1, (Duration::ZERO, Act::Reset(links)));
        (service.to_owned(), away_for(lasts), acts)
    }

    fn lost(&mut self, to: Peer) -> Draft {
        let link = Link { who: self.who(), to };
        let lose = if to == Peer::Postgres { Act::LoseCommit(link) } else { Act::LoseReport(link) };
        let waits = self.seconds(10.0, 10.0);
        (link.to_string(), Value::Null, vec![(Duration::ZERO, lose), (waits, Act::Heal(vec![link]))])
    }

    /// A third member comes and goes.
    fn rebalance(&mut self) -> Draft {
        let (service, lasts) = (self.service(), self.seconds(30.0, 30.0));
        let who = Who { service, instance: INSTANCES };
        let (mut acts, mut after) = (Vec::new(), Duration::ZERO);
        while after < lasts {
            acts.push((after, Act::Start(who)));
            acts.push((after + Duration::from_secs(3), Act::Leave(who)));
            after += Duration::from_secs(5);
        }
        acts.push((after, Act::Kill(who)));
        (service.to_owned(), Value::Null, acts)
    }

    /// Nobody needs it, not even who is started meanwhile.
    fn registry_away(&mut self) -> Draft {
        let (who, lasts) = (self.who(), self.seconds(30.0, 30.0));
        let links = (0..INSTANCES).flat_map(|instance| SERVICES.map(|service| Who { service, instance }));
        let links: Vec<Link> = links.map(|who| Link { who, to: Peer::Registry }).collect();
        let mut acts = between(lasts, links.clone(), Faults { refuse: true, ..Faults::default() });
        acts.insert(1, (Duration::ZERO, Act::Reset(links)));
        acts.insert(2, (lasts / 4, Act::Kill(who)));
        acts.insert(3, (lasts / 4, Act::Start(who)));
        (format!("registry; {who} restarted"), away_for(lasts), acts)
    }

    fn gateway(&mut self) -> Draft {
        let modes = ["error", "down", "cut_answer", "silent", "double", "nothing"];
        let mode = modes[self.random.random_range(0..modes.len())];
        if mode != "nothing" {
            return self.scripted(Simulator::Gateway, mode);
        }
        let lasts = self.seconds(10.0, 20.0);
        let link = |instance| Link { who: Who { service: "payment-svc", instance }, to: Peer::Outside };
        let held = Way { hold: true, ..Way::default() };
        let faults = Faults { up: Way::default(), down: held, refuse: false };
        (
            "gateway answers nothing".to_owned(),
            away_for(lasts),
            between(lasts, (0..INSTANCES).map(link).collect(), faults),
        )
    }

    /// Longer than the group waits for a silent member.
    fn boundary(&mut self) -> Draft {
        let (who, lasts) = (self.who(), self.seconds(10.0, 15.0));
        let labels = boundaries_of(who.service);
        let label = labels[self.random.random_range(0..labels.len())];
        let action = AT_A_BOUNDARY[self.random.random_range(0..AT_A_BOUNDARY.len())];
        let detail = json!({"action": action, "seconds": lasts.as_secs_f64()});
        let acts = vec![(Duration::ZERO, Act::Arm(who, label, action)), (lasts, Act::Disarm(who, label))];
        (format!("{who} at {label}"), detail, acts)
    }

    fn scripted(&mut self, simulator: Simulator, mode: &'static str) -> Draft {
        let lasts = self.seconds(10.0, 20.0);
        let acts = vec![(Duration::ZERO, Act::Plan(simulator, mode)), (lasts, Act::NoPlan(simulator))];
        (mode.to_owned(), away_for(lasts), acts)
    }
}

fn away_for(time: Duration) -> Value {
    json!({"seconds": time.as_secs_f64()})
}

fn between(lasts: Duration, links: Vec<Link>, faults: Faults) -> Vec<(Duration, Act)> {
    vec![(Duration::ZERO, Act::Change(links.clone(), Box::new(faults))), (lasts, Act::Heal(links))]
}

/// To Kafka and Postgres.
fn every_link() -> Vec<Link> {
    let everyone = (0..INSTANCES).flat_map(|instance| SERVICES.map(|service| Who { service, instance }));
    everyone.flat_map(|who| [Peer::Kafka, Peer::Postgres].map(|to| Link { who, to })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_and_a_length_give_one_plan() {
        assert_eq!(plan(7, TEN_MINUTES), plan(7, TEN_MINUTES));
        assert_ne!(plan(7, TEN_MINUTES), plan(8, TEN_MINUTES));
    }

    #[test]
    fn ten_minutes_have_all_of_the_table() {
        let kinds = kinds(&plan(1, TEN_MINUTES));
        let table = PER_TEN_MINUTES.map(|(kind, often)| (kind.to_owned(), u64::from(often)));
        assert_eq!(kinds, BTreeMap::from(table));
    }

    #[test]
    fn every_service_is_killed_five_times_in_ten_minutes() {
        let faults = plan(1, TEN_MINUTES);
        for service in SERVICES {
            let of_it = faults.iter().filter(|fault| fault.kind == "kill" && fault.target.starts_with(service));
            assert!(of_it.count() >= 5, "{service}");
        }
    }

    #[test]
    fn faults_end_within_the_run_and_a_short_one_has_its_share() {
        for seed in 0..50 {
            for length in [Duration::from_secs(45), TEN_MINUTES] {
                let faults = plan(seed, length);
                assert!(
                    faults.iter().all(|fault| fault.at + fault.lasts() <= length + Duration::from_secs(5)),
                    "{seed}"
                );
                assert!(!faults.is_empty(), "{seed}");
            }
            let short = plan(seed, Duration::from_secs(45)).len();
            assert!((2..25).contains(&short), "{seed}: {short}");
        }
    }
}
