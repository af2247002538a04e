//! How it is found out whether a server answers: each probe makes a connection of its own and asks for the least.
//!
//! When one is made, and for how long it may take, is [`crate::breaker`]'s.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::kafka::Kafka;

/// A thread that asks Kafka is back after this.
const KAFKA_TIMEOUT: Duration = Duration::from_millis(1_400);

/// Whether Postgres takes connections and answers on them.
///
/// # Errors
/// What is wrong.
pub async fn postgres(options: &PgConnectOptions) -> Result<(), String> {
    // Dropping a connection that is not made yet harms no pool.
    let connection = PgConnection::connect_with(options).await.map_err(|error| error.to_string())?;
    connection.close().await.map_err(|error| error.to_string())
}

/// Where a database is, for people: without password.
#[must_use]
pub fn postgres_place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    format!("Postgres at {}:{}/{database}", options.get_host(), options.get_port())
}

/// Whether a broker answers.
///
/// # Errors
/// What is wrong.
pub async fn kafka(kafka: Arc<Kafka>) -> Result<(), String> {
    let ask = move || -> anyhow::Result<()> {
        let client: BaseConsumer = kafka.reader_config().create().context("making a client")?;
        client.client().fetch_metadata(None, KAFKA_TIMEOUT).context("no broker answers")?;
        Ok(())
    };
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.map_err(|error| error.to_string())?.map_err(|error| format!("{error:#}"))
}

/// Whether anything answers at an HTTP address, whatever it answers.
///
/// # Errors
/// What is wrong, without the address: it may hold a password.
pub async fn http(client: reqwest::Client, url: reqwest::Url) -> Result<(), String> {
    let answered = client.get(url).send().await;
    answered.map(|_| ()).map_err(|error| chain(&error.without_url()))
}

/// Host and port of a URL, without its password.
#[must_use]
pub fn place(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("nowhere");
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An error with its causes: reqwest's own words say only that something went wrong.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_no_password() {
        let url = "https://user:secret@gateway.test/v1".parse().unwrap();
        assert_eq!(place(&url), "gateway.test:443");
        let options = "postgres://order:secret@db.test:15432/order".parse().unwrap();
        assert_eq!(postgres_place(&options), "Postgres at db.test:15432/order");
    }
}
