//! What each kind of fault consists of: to whom, for how long, in which steps.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use engine::failpoint;
use rand::RngExt;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use testkit::proxy::{Faults, Way};

use super::{INSTANCES, Planner};
use crate::chaos::faults::{Act, Link, Peer, Simulator, Who};
use crate::servers::ToServer;
use crate::stack::SERVICES;

/// What happens at a boundary. Standing still lasts until the fault ends.
const AT_A_BOUNDARY: [&str; 4] =
    ["1*return(sigkill)->off", "1*return(err)->off", "1*return(stop)->off", "1*return(delay:8000)->off"];

/// Seconds by which a clock is wrong.
const STEPS_OF_A_CLOCK: [i64; 4] = [-5, -3_600, 60, 3_600];

/// Events that an instance writes wrongly.
const MISWRITTEN: u64 = 3;

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
pub(super) type Draft = (String, Value, Vec<(Duration, Act)>);

impl Planner {
    pub(super) fn draft(&mut self, kind: &str) -> Draft {
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
            // The rows of the products that the others want are locked.
            "holder_stop" => {
                let who = Who { service: "inventory-svc", instance: self.random.random_range(0..INSTANCES) };
                self.at_boundary(who, "C2", "1*return(stop)->off", 15.0)
            }
            "slow_processor" => {
                let who = self.who();
                self.at_boundary(who, "C1", "return(delay:500)", 60.0)
            }
            "clock" => self.clock(),
            "registry_empty" => self.registry_empty(),
            "process_clock" => self.process_clock(),
            "miswrite" => self.miswrite(),
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
        (link.to_string(), detail, between(lasts, vec![link], Faults { up, down, ..Faults::default() }))
    }

    /// Cut for so long that the ends find out by themselves, and gone when it ends.
    fn half_open(&mut self) -> Draft {
        let (link, lasts) = (self.link(), self.seconds(20.0, 20.0));
        let held = Way { hold: true, ..Way::default() };
        let cut = Act::Change(vec![link], Box::new(Faults { up: held, down: held, ..Faults::default() }));
        let acts = vec![(Duration::ZERO, cut), (lasts, Act::Reset(vec![link])), (lasts, Act::Heal(vec![link]))];
        (link.to_string(), away_for(lasts), acts)
    }

    fn slow(&mut self, all: bool) -> Draft {
        let one = self.link();
        let (links, lasts) = (if all { every_link() } else { vec![one] }, self.seconds(20.0, 20.0));
        let way = Way { delay: Duration::from_millis(100), jitter: Duration::from_millis(50), ..Way::default() };
        let target = if all { "all links".to_owned() } else { one.to_string() };
        (target, away_for(lasts), between(lasts, links, Faults { up: way, down: way, ..Faults::default() }))
    }

    fn thin(&mut self) -> Draft {
        let (link, lasts) = (self.link(), self.seconds(15.0, 20.0));
        let way = Way { bytes_per_s: NonZeroU32::new(20_000), slice: NonZeroUsize::new(100), ..Way::default() };
        (
            link.to_string(),
            away_for(lasts),
            between(lasts, vec![link], Faults { up: way, down: way, ..Faults::default() }),
        )
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
            acts.push((
                after,
                Act::Change(vec![*link], Box::new(Faults { up: held, down: held, ..Faults::default() })),
            ));
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
        let links = to_registry();
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
        let faults = Faults { down: held, ..Faults::default() };
        (
            "gateway answers nothing".to_owned(),
            away_for(lasts),
            between(lasts, (0..INSTANCES).map(link).collect(), faults),
        )
    }

    /// Longer than the group waits for a silent member.
    fn boundary(&mut self) -> Draft {
        let who = self.who();
        let labels = boundaries_of(who.service);
        let label = labels[self.random.random_range(0..labels.len())];
        let action = AT_A_BOUNDARY[self.random.random_range(0..AT_A_BOUNDARY.len())];
        let seconds = self.random.random_range(10.0..15.0);
        self.at_boundary(who, label, action, seconds)
    }

    fn at_boundary(&mut self, who: Who, label: &'static str, action: &'static str, seconds: f64) -> Draft {
        let lasts = self.seconds(seconds, seconds);
        let detail = json!({"action": action, "seconds": lasts.as_secs_f64()});
        let acts = vec![(Duration::ZERO, Act::Arm(who, label, action)), (lasts, Act::Disarm(who, label))];
        (format!("{who} at {label}"), detail, acts)
    }

    /// Of our own code in one process; Postgres' stays right.
    fn clock(&mut self) -> Draft {
        let (who, lasts) = (self.who(), self.seconds(10.0, 20.0));
        let (ahead, detail) = self.step_of_a_clock(lasts);
        (who.to_string(), detail, vec![(Duration::ZERO, Act::Clock(who, ahead * 1_000, lasts)), (lasts, Act::Over)])
    }

    /// Of one process with all its libraries.
    fn process_clock(&mut self) -> Draft {
        let (who, lasts) = (self.who(), self.seconds(30.0, 30.0));
        let (ahead, detail) = self.step_of_a_clock(lasts);
        (who.to_string(), detail, vec![(Duration::ZERO, Act::WrongTime(who, ahead)), (lasts, Act::RightTime(who))])
    }

    fn step_of_a_clock(&mut self, lasts: Duration) -> (i64, Value) {
        let ahead = STEPS_OF_A_CLOCK[self.random.random_range(0..STEPS_OF_A_CLOCK.len())];
        (ahead, json!({"seconds_ahead": ahead, "seconds": lasts.as_secs_f64()}))
    }

    /// It answers, and knows no schema; who is started meanwhile waits for a better one.
    fn registry_empty(&mut self) -> Draft {
        let (who, lasts) = (self.who(), self.seconds(20.0, 20.0));
        let links = to_registry();
        let acts = vec![
            (Duration::ZERO, Act::Mislead(links.clone())),
            (Duration::ZERO, Act::Reset(links.clone())),
            (lasts / 4, Act::Kill(who)),
            (lasts / 4, Act::Start(who)),
            (lasts, Act::Heal(links)),
        ];
        (format!("registry; {who} restarted"), away_for(lasts), acts)
    }

    /// Their keys wait at every reader for a build that can read them, and an operator; both come when the faults are over.
    fn miswrite(&mut self) -> Draft {
        let (who, lasts) = (self.who(), self.seconds(10.0, 10.0));
        let acts = vec![(Duration::ZERO, Act::Miswrite(who, MISWRITTEN)), (lasts, Act::WriteWell(who))];
        (who.to_string(), json!({"events": MISWRITTEN}), acts)
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

fn to_registry() -> Vec<Link> {
    let everyone = (0..INSTANCES).flat_map(|instance| SERVICES.map(|service| Who { service, instance }));
    everyone.map(|who| Link { who, to: Peer::Registry }).collect()
}

/// To Kafka and Postgres.
fn every_link() -> Vec<Link> {
    let everyone = (0..INSTANCES).flat_map(|instance| SERVICES.map(|service| Who { service, instance }));
    everyone.flat_map(|who| [Peer::Kafka, Peer::Postgres].map(|to| Link { who, to })).collect()
}
