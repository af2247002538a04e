//! Instances of the toy service in processes of their own, to be stopped, woken and killed.
//!
//! A process is this test binary again, told by its environment to run one test: the one at the end of this file.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use engine::kafka::Kafka;
use engine::{Servers, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::PARTITIONS;
use crate::toy::Toy;
use crate::world::{Instance, Launch, World};

const ORDERS: &str = "ORDERLOG_TEST_CHILD";

/// An instance in a process of its own; killed with this.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts one that reaches the database at this URL.
    pub(crate) fn start(world: &World, name: &str, url: &str) -> Self {
        Self::armed(world, name, url, "")
    }

    /// Starts one whose boundaries are armed so; only a test build has any.
    pub(crate) fn armed(world: &World, name: &str, url: &str, failpoints: &str) -> Self {
        let kafka = &world.kafka;
        let orders = [&kafka.bootstrap, &kafka.topic_prefix, url, name].map(ToString::to_string).join(" ");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::an_instance_when_told_to_be_one", "--nocapture"])
            .env(ORDERS, orders)
            .env("FAILPOINTS", failpoints)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Stops it where it is.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn wake(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// True while it is stopped where it is, as SIGSTOP leaves it.
    #[cfg(feature = "failpoints")]
    pub(crate) fn is_stopped(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name before it is in brackets and may hold anything.
        status.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// True while it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// No destructor runs in it.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test of its own, but what a child process runs; without orders there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_when_told_to_be_one() {
    #[expect(clippy::disallowed_methods, reason = "the orders of a child process")]
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Vec<&str> = orders.split(' ').collect();
    let [bootstrap, topic_prefix, url, name] = orders[..] else { panic!("{orders:?}") };
    let kafka = Arc::new(Kafka {
        bootstrap: bootstrap.to_owned(),
        topic_prefix: topic_prefix.to_owned(),
        partitions: PARTITIONS,
        session_timeout: Duration::from_secs(6),
    });
    let launch = Launch {
        kafka,
        url: url.to_owned(),
        settings: Settings::new(name),
        connections: 4,
        breakers: Servers::default(),
    };
    let instance = Instance::launch(Toy::default(), launch, "http://127.0.0.1:9").await.unwrap();
    // Ends with its parent, whatever becomes of that one.
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        _ = parent => std::process::exit(0),
        ended = instance.engine.ended() => panic!("{ended:?}"),
    }
}
