//! A sink for mail and SMS in this process, on free ports, whose trouble is its test's own.
//!
//! Its tests need a runtime of several threads: the mailer says goodbye to the sink when it is dropped, and waits for an
//! answer.

use notify_svc::mailer::Mailer;
use reqwest::Client;
use serde_json::{Value, json};
use simulators::config::SinkConfig;
use simulators::sink::Sink;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) struct SinkStand {
    pub(crate) mailer: Mailer,
    pub(crate) http: String,
    client: Client,
    _dir: TempDir,
    _stop: DropGuard,
}

impl SinkStand {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let any = ([127, 0, 0, 1], 0).into();
        let config = SinkConfig { http_addr: any, smtp_addr: any, data_dir: dir.path().to_owned() };
        let sink = Sink::build(config).await.unwrap();
        let http = format!("http://{}", sink.http_addr());
        let mailer = Mailer::new(&format!("smtp://{}", sink.smtp_addr()), &format!("{http}/sms")).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(sink.run(stop.clone()));
        Self { mailer, http, client: Client::new(), _dir: dir, _stop: stop.drop_guard() }
    }

    /// From now on, so many messages meet this trouble.
    pub(crate) async fn plan(&self, mode: &str, count: u64) {
        let plan = json!({"mode": mode, "count": count, "delay_ms": 200});
        let set = self.client.post(format!("{}/admin/plan", self.http)).json(&plan).send().await.unwrap();
        assert_eq!(set.status().as_u16(), 200);
    }

    /// What arrived, in the order of arrival.
    pub(crate) async fn messages(&self) -> Vec<Value> {
        let page = self.client.get(format!("{}/messages?limit=200", self.http)).send().await.unwrap();
        let page: Value = page.json().await.unwrap();
        page["items"].as_array().unwrap().clone()
    }
}
