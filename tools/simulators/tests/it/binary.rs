//! The real binary, killed with SIGKILL in the middle of work: nothing that was answered is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::eventually;
use crate::gateway_stand::{Api, charge_body};
use crate::merchant::{Merchant, SECRET};

/// A child that does not outlive the test.
struct Process(Child);

impl Process {
    fn start(part: &str, data_dir: &Path, ports: &[(&str, u16)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulators"));
        command.arg(part).env("DATA_DIR", data_dir).env("GATEWAY_SECRET", SECRET).env("LOG", "warn");
        for (name, port) in ports {
            command.env(name, format!("127.0.0.1:{port}"));
        }
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when `kill` was called before: nothing is left to be done then.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

/// Below the kernel's ephemeral range, so that no outgoing connection takes it before the program does; each handed out once.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(9_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 10_000, "no free port below 10000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

async fn ready(api: &Api) {
    eventually(Duration::from_secs(20), async || {
        let answer = api.client.get(format!("{}/healthz", api.url)).send().await;
        answer.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

async fn all(api: &Api, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let (status, page) = api.get(&format!("{path}?limit=1000&cursor={cursor}")).await;
        assert_eq!(status, 200, "{page}");
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return items,
        }
    }
}

#[actix_web::test]
async fn a_killed_gateway_keeps_every_charge_it_answered_and_tells_each() {
    let dir = tempfile::tempdir().unwrap();
    let merchant = Merchant::open();
    let port = free_port();
    let api = Api::new(format!("http://127.0.0.1:{port}"));
    let mut answered = Vec::new();
    for round in 0..3 {
        let gateway = Process::start("gateway", dir.path(), &[("GATEWAY_ADDR", port)]);
        ready(&api).await;
        let done = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (api, url, done) = (api.clone(), merchant.url(), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut answered = Vec::new();
                    for n in 0.. {
                        let key = format!("charge:{round}-{client}-{n}");
                        match api.send("/v1/charges", &charge_body(&key, "pm_ok", &url)).await {
                            Ok(response) if response.status() == 202 => answered.push(key),
                            _ => break,
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    answered
                })
            })
            .collect();
        eventually(Duration::from_secs(20), async || {
            let done = done.load(Ordering::Relaxed);
            if done >= 300 { Ok(()) } else { Err(done) }
        })
        .await;
        gateway.kill();
        for client in clients {
            answered.append(&mut client.await.unwrap());
        }
    }
    assert!(answered.len() >= 900);

    let _gateway = Process::start("gateway", dir.path(), &[("GATEWAY_ADDR", port)]);
    ready(&api).await;
    let charges = all(&api, "/v1/charges").await;
    let captured: BTreeSet<&str> = charges
        .iter()
        .filter(|charge| charge["status"] == "captured")
        .map(|charge| charge["key"].as_str().unwrap())
        .collect();
    let lost: Vec<_> = answered.iter().filter(|key| !captured.contains(key.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(captured.len(), charges.len());
    // Each is told, some twice, but never under two event IDs.
    let told = eventually(Duration::from_secs(30), async || {
        let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for received in merchant.received() {
            let key = received.event["key"].as_str().unwrap().to_owned();
            told.entry(key).or_default().insert(received.event_id().to_owned());
        }
        if told.len() == charges.len() { Ok(told) } else { Err((told.len(), charges.len())) }
    })
    .await;
    assert!(told.values().all(|events| events.len() == 1));
}

#[actix_web::test]
async fn a_killed_sink_keeps_every_message_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (http, smtp) = (free_port(), free_port());
    let api = Api::new(format!("http://127.0.0.1:{http}"));
    let ports = [("SINK_ADDR", http), ("SMTP_ADDR", smtp)];
    let sink = Process::start("sink", dir.path(), &ports);
    ready(&api).await;
    let sender = tokio::spawn({
        let api = api.clone();
        async move {
            let mut answered = 0;
            loop {
                let body = json!({"message_id": answered.to_string(), "to": "+15550100", "body": "Order 1"});
                match api.send("/sms", &body).await {
                    Ok(response) if response.status() == 202 => answered += 1,
                    _ => return answered,
                }
            }
        }
    });
    eventually(Duration::from_secs(20), async || {
        let (_, page) = api.get("/messages?limit=1000").await;
        let arrived = page["items"].as_array().unwrap().len();
        if arrived >= 200 { Ok(()) } else { Err(arrived) }
    })
    .await;
    sink.kill();
    let answered: usize = sender.await.unwrap();

    let _sink = Process::start("sink", dir.path(), &ports);
    ready(&api).await;
    let ids: Vec<String> =
        all(&api, "/messages").await.iter().map(|m| m["message_id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.len() >= answered);
    assert!(ids.iter().enumerate().all(|(n, id)| *id == n.to_string()), "{ids:?}");
}

#[actix_web::test]
async fn a_second_process_on_the_same_folder_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _first = Process::start("gateway", dir.path(), &[("GATEWAY_ADDR", port)]);
    ready(&Api::new(format!("http://127.0.0.1:{port}"))).await;
    let second = Command::new(env!("CARGO_BIN_EXE_simulators"))
        .arg("gateway")
        .envs([("GATEWAY_ADDR", "127.0.0.1:0"), ("GATEWAY_SECRET", SECRET)])
        .env("DATA_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("another process uses"), "{said}");
}

#[actix_web::test]
async fn without_a_secret_it_says_which_variable_is_missing() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_simulators")).arg("gateway").env_remove("GATEWAY_SECRET").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("GATEWAY_SECRET is not set"));
}
