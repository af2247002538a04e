//! What the admin routes are answered from, from the first moment of a process on.
//!
//! It decides nothing: the engine says how its processors are, the breakers what is away.

use std::sync::{Arc, Mutex, PoisonError};

use edge::health::{Health, Report};
use edge::processors::Processors;
use engine::Engine;
use engine::breaker::Breakers;
use engine::desk::DeadLetters;
use engine::status::ProcessorStatus;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

/// What the admin routes are answered from, from the first moment of the process on.
pub(crate) struct Stage {
    name: &'static str,
    said: Mutex<String>,
    breakers: Breakers,
    desk: Mutex<Option<Arc<dyn DeadLetters>>>,
    engine: Mutex<Option<Engine>>,
    changed: Notify,
}

impl Stage {
    pub(crate) fn new(name: &'static str, breakers: Breakers) -> Self {
        Self {
            name,
            breakers,
            said: Mutex::new("waiting for Postgres".to_owned()),
            desk: Mutex::new(None),
            engine: Mutex::new(None),
            changed: Notify::new(),
        }
    }

    pub(crate) fn say(&self, what: String) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    pub(crate) fn set_desk(&self, desk: Arc<dyn DeadLetters>) {
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = Some(desk);
    }

    pub(crate) fn set_engine(&self, engine: Engine) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
        self.changed.notify_waiters();
    }

    pub(crate) fn take_engine(&self) -> Option<Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until the engine ends by itself.
    pub(crate) async fn engine_ended(&self) -> String {
        let ended = {
            let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            engine.as_ref().map(Engine::ended)
        };
        match ended {
            Some(ended) => match ended.await {
                Err(reason) => reason,
                Ok(()) => "the consumer left its group".to_owned(),
            },
            None => std::future::pending().await,
        }
    }

    fn look(&self) -> Report {
        let name = self.name;
        let (mut ready, mut reasons, processors) = {
            let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            match engine.as_ref().map(Engine::readiness) {
                Some(readiness) => {
                    let as_json = |status| serde_json::to_value(status).unwrap_or_default();
                    let processors = readiness.processors.iter().map(as_json).collect();
                    (readiness.ready, readiness.reasons, processors)
                }
                None => {
                    let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    (false, vec![format!("{name} is starting: {said}")], Vec::new())
                }
            }
        };
        for (away, vital) in self.breakers.away() {
            ready &= !vital;
            reasons.push(format!("{name} is {away}"));
        }
        Report { ready, reasons, processors, dependencies: self.breakers.dependencies() }
    }
}

impl Health for Stage {
    fn report(&self) -> BoxFuture<'_, Report> {
        Box::pin(std::future::ready(self.look()))
    }
}

impl Processors for Stage {
    fn processors(&self) -> Option<Vec<ProcessorStatus>> {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.as_ref().map(|engine| engine.readiness().processors)
    }

    fn dead_letters(&self) -> Option<Arc<dyn DeadLetters>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn resume(&self, partition: i32) {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engine.as_ref() {
            engine.resume(partition);
        }
    }
}
