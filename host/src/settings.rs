//! The settings that every service has. A service's own ones are in its `config.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use edge::config::{Reader, Secret};
use engine::kafka::Kafka;

/// What every service reads from its environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `KAFKA_BOOTSTRAP`, `TOPIC_PREFIX`, `PARTITIONS`, `SESSION_TIMEOUT`
    pub kafka: Kafka,
    /// `REGISTRY_URL`
    pub registry_url: String,
    /// `DATABASE_URL`
    pub database_url: Secret,
    /// `HTTP_ADDR`
    pub http_addr: SocketAddr,
    /// `ADMIN_ADDR`
    pub admin_addr: SocketAddr,
    /// `JWT_KEYS`, usually as `JWT_KEYS_FILE`
    pub jwt_keys: Secret,
    /// `RETRY_DELAYS`
    pub retry_delays: Vec<Duration>,
    /// `EFFECT_DELAYS`
    pub effect_delays: Vec<Duration>,
    /// `TIMER_GRACE`
    pub timer_grace: Duration,
    /// `LOG`
    pub log: String,
}

impl Settings {
    /// Reads them; what is wrong is remembered by the reader.
    pub fn read(reader: &mut Reader) -> Option<Self> {
        // Every variable is read before the first `?`, so that all mistakes are told at once.
        let bootstrap = reader.text("KAFKA_BOOTSTRAP");
        let topic_prefix = reader.text_or("TOPIC_PREFIX", "");
        let partitions = reader.parsed_or::<i32>("PARTITIONS", "6");
        let session_timeout = reader.duration_or("SESSION_TIMEOUT", "10s");
        let registry_url = reader.text("REGISTRY_URL");
        let database_url = reader.secret("DATABASE_URL");
        let http_addr = reader.parsed("HTTP_ADDR");
        let admin_addr = reader.parsed("ADMIN_ADDR");
        let jwt_keys = reader.secret("JWT_KEYS");
        let retry_delays = reader.durations_or("RETRY_DELAYS", "5s,30s,2m,10m");
        let effect_delays = reader.durations_or("EFFECT_DELAYS", "1s,2s,4s,8s,16s,32s,64s");
        let timer_grace = reader.duration_or("TIMER_GRACE", "60s");
        let log = reader.text_or("LOG", "info");
        Some(Self {
            kafka: Kafka {
                bootstrap: bootstrap?,
                topic_prefix: topic_prefix?,
                partitions: partitions?,
                session_timeout: session_timeout?,
            },
            registry_url: registry_url?,
            database_url: database_url?,
            http_addr: http_addr?,
            admin_addr: admin_addr?,
            jwt_keys: jwt_keys?,
            retry_delays: retry_delays?,
            effect_delays: effect_delays?,
            timer_grace: timer_grace?,
            log: log?,
        })
    }
}
