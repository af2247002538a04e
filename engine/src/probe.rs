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

/// An HTTP server, of which only is asked whether it answers, whatever that is.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    url: reqwest::Url,
}

impl Http {
    /// A probe that asks for this address.
    ///
    /// # Errors
    /// When it is none; it is not shown, as it may hold a password.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        // A connection for each probe: one that is kept may be the one that was cut off.
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("making an HTTP client")?;
        Ok(Self { client, url: url.parse().context("not a URL")? })
    }

    /// Host and port, for people.
    #[must_use]
    pub fn place(&self) -> String {
        place(&self.url)
    }

    /// Looks once.
    pub fn look(&self) -> impl Future<Output = Result<(), String>> + Send + use<> {
        let asked = self.client.get(self.url.clone()).send();
        async move { asked.await.map(|_| ()).map_err(|error| chain(&error.without_url())) }
    }
}

/// Host and port of a URL, without its password.
fn place(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("nowhere");
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Host and port of a URL of any scheme, without its password.
///
/// # Errors
/// When it is none.
pub fn place_of(url: &str) -> anyhow::Result<String> {
    Ok(place(&url.parse().context("not a URL")?))
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
        assert_eq!(Http::new("https://user:secret@gateway.test/v1").unwrap().place(), "gateway.test:443");
        assert_eq!(place_of("smtp://user:secret@mail.test:25").unwrap(), "mail.test:25");
        let options = "postgres://order:secret@db.test:15432/order".parse().unwrap();
        assert_eq!(postgres_place(&options), "Postgres at db.test:15432/order");
    }
}
