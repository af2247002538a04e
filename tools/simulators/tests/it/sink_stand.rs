//! A sink in this process on free ports.

use std::path::Path;

use lettre::{AsyncSmtpTransport, Tokio1Executor};
use serde_json::Value;
use simulators::config::SinkConfig;
use simulators::sink::Sink;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gateway_stand::Api;

pub(crate) struct SinkStand {
    pub(crate) api: Api,
    pub(crate) smtp_port: u16,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl SinkStand {
    pub(crate) async fn start(data_dir: &Path) -> Self {
        let any = ([127, 0, 0, 1], 0).into();
        let config = SinkConfig { http_addr: any, smtp_addr: any, data_dir: data_dir.to_owned() };
        let sink = Sink::build(config).await.unwrap();
        let api = Api::new(format!("http://{}", sink.http_addr()));
        let smtp_port = sink.smtp_addr().port();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(sink.run(shutdown.clone()));
        Self { api, smtp_port, shutdown, running }
    }

    /// With a folder of its own, which must be kept.
    pub(crate) async fn fresh() -> (Self, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Self::start(dir.path()).await, dir)
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub(crate) fn mailer(&self) -> AsyncSmtpTransport<Tokio1Executor> {
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(self.smtp_port).build()
    }

    pub(crate) async fn messages(&self, query: &str) -> Vec<Value> {
        let (status, page) = self.api.get(&format!("/messages{query}")).await;
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().clone()
    }
}
