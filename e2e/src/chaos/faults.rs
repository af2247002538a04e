//! What a run can do to the system, as data: to whom, what, and when within a fault.
//!
//! Nothing is done here; `field` does it.

use std::time::Duration;

use serde_json::Value;
use testkit::proxy::Faults;

use crate::servers::ToServer;

/// An instance of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) service: &'static str,
    pub(super) instance: usize,
}

/// Whom an instance speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Kafka,
    Postgres,
    Registry,
    /// The gateway of payment-svc, the mail server of notify-svc.
    Outside,
}

/// The connections of an instance to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    pub(super) who: Who,
    pub(super) to: Peer,
}

/// What a simulator is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Simulator {
    Gateway,
    Sink,
}

/// One thing that is done at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    Kill(Who),
    /// Where it does not run.
    Start(Who),
    Stop(Who),
    Continue(Who),
    /// SIGTERM: it says goodbye to its group.
    Leave(Who),
    Broker(ToServer),
    Postgres(ToServer),
    /// SIGKILL of one backend of this service's database: Postgres restarts itself.
    Backend(&'static str),
    Change(Vec<Link>, Box<Faults>),
    Heal(Vec<Link>),
    /// To a registry that has nothing.
    Mislead(Vec<Link>),
    Reset(Vec<Link>),
    HalfClose(Vec<Link>),
    /// The reply to the next COMMIT is lost.
    LoseCommit(Link),
    /// The reply to the next batch of records is lost.
    LoseReport(Link),
    /// A mode of the simulator's plans.
    Plan(Simulator, &'static str),
    /// The end of its plan.
    NoPlan(Simulator),
    /// Something happens at a boundary of the test build, as the crate `fail` writes it.
    Arm(Who, &'static str, &'static str),
    /// Nothing does any more, and who was killed or stopped there is well again.
    Disarm(Who, &'static str),
    /// The wall clock of a test build is so many milliseconds ahead of the machine's, for so long.
    Clock(Who, i64, Duration),
    /// So many of the next events are written wrongly.
    Miswrite(Who, u64),
    /// None is any more.
    WriteWell(Who),
    /// Killed, and started with a wall clock so many seconds ahead, for all that is in the process.
    WrongTime(Who, i64),
    /// Killed, and started with the machine's.
    RightTime(Who),
    /// What was done is over by itself.
    Over,
    /// So many times the usual load.
    Load(u32),
}

/// A fault of the plan.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    /// After the first fault may be.
    pub(super) at: Duration,
    pub(super) kind: &'static str,
    pub(super) target: String,
    pub(super) detail: Value,
    /// In their order, each so long after `at`. The last one ends the fault.
    pub(super) acts: Vec<(Duration, Act)>,
}

impl Fault {
    pub(super) fn lasts(&self) -> Duration {
        self.acts.last().map_or(Duration::ZERO, |(after, _)| *after)
    }

    /// The links it touches.
    pub(super) fn links(&self) -> Vec<Link> {
        let mut links: Vec<Link> = self
            .acts
            .iter()
            .flat_map(|(_, act)| match act {
                Act::Change(links, _) | Act::Mislead(links) | Act::Reset(links) | Act::HalfClose(links) => {
                    links.clone()
                }
                Act::LoseCommit(link) | Act::LoseReport(link) => vec![*link],
                _ => Vec::new(),
            })
            .collect();
        links.sort();
        links.dedup();
        links
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.instance)
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to = match self.to {
            Peer::Kafka => "kafka",
            Peer::Postgres => "postgres",
            Peer::Registry => "registry",
            Peer::Outside => "outside",
        };
        write!(f, "{}→{to}", self.who)
    }
}
