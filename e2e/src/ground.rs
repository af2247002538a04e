//! What a stack stands on: the shared servers, keys, databases and programs.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, bail, ensure};
use sqlx::Connection;

use crate::stack::SERVICES;

/// What stands for the variables that `cargo verify` sets, in a command of its own.
static STANDING_IN: OnceLock<BTreeMap<&'static str, String>> = OnceLock::new();

/// A variable that `cargo verify` sets.
///
/// # Panics
/// With the sentence that says what to run.
pub(crate) fn server(name: &str) -> String {
    let value = given(name).or_else(|| STANDING_IN.get()?.get(name).cloned());
    value.unwrap_or_else(|| panic!("{name} is not set: run this test with `cargo verify --only e2e`"))
}

fn given(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the tests' one way to learn where the servers are")]
    std::env::var(name).ok()
}

/// For a command that is run by a person: what the environment does not give is that of the running `cargo up`, with the
/// programs built as this one is, with the boundaries that only a test build has.
pub(crate) fn stand_on_running_stack() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate lies in the workspace")?;
    let mut found = BTreeMap::new();
    let servers = [
        ("ORDERLOG_TEST_KAFKA", "kafka"),
        ("ORDERLOG_TEST_REGISTRY", "registry"),
        ("ORDERLOG_TEST_POSTGRES", "postgres_admin"),
    ];
    if servers.iter().any(|(variable, _)| given(variable).is_none()) {
        let path = root.join(".orderlog/stack.json");
        let text = std::fs::read_to_string(path).context("no servers: `cargo up --only infra --detach` starts them")?;
        let stack: serde_json::Value = serde_json::from_str(&text).context("stack.json")?;
        let of = |name: &str| stack[name].as_str().map(str::to_owned).with_context(|| format!("stack.json: {name}"));
        for (variable, name) in servers {
            found.insert(variable, of(name)?);
        }
    }
    if given("ORDERLOG_TEST_PROGRAMS").is_none() {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--workspace", "--bins", "--features", "edge/failpoints"]).current_dir(root);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let status = cargo.status().context("building the services")?;
        ensure!(status.success(), "building the services: {status}");
        let programs = std::env::current_exe()?.parent().context("a program lies in a folder")?.display().to_string();
        found.insert("ORDERLOG_TEST_PROGRAMS", programs);
    }
    // Once is enough.
    STANDING_IN.get_or_init(|| found);
    Ok(())
}

/// A port that nobody listens on and that no outgoing connection can take before its server binds it: below the kernel's
/// ephemeral range, and below the ranges of `cargo up` and `cargo verify`. Each port is handed out once.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    const PORTS: std::ops::Range<u16> = 10_000..23_000;
    let width = PORTS.end - PORTS.start;
    // Two runs on one machine begin at different places.
    let first = u16::try_from(std::process::id() % u32::from(width / 64))? * 64;
    for _ in 0..width {
        let port = PORTS.start + (first + TAKEN.fetch_add(1, Ordering::Relaxed) % width) % width;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", PORTS.start, PORTS.end)
}

/// A program of this workspace; `cargo verify` says where.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(server("ORDERLOG_TEST_PROGRAMS")).join(name))
}

pub(crate) fn rand_u32() -> u32 {
    u32::from_be_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().expect("16 bytes"))
}

pub(crate) fn keys(folder: &Path) -> anyhow::Result<(String, PathBuf)> {
    let (private, public) = (folder.join("signing.pem"), folder.join("verify.pem"));
    let run = |arguments: &[&std::ffi::OsStr]| -> anyhow::Result<()> {
        let status =
            Command::new("openssl").args(arguments).stderr(Stdio::null()).status().context("running openssl")?;
        ensure!(status.success(), "openssl: {status}");
        Ok(())
    };
    run(&["genpkey".as_ref(), "-algorithm".as_ref(), "ed25519".as_ref(), "-out".as_ref(), private.as_ref()])?;
    run(&["pkey".as_ref(), "-pubout".as_ref(), "-in".as_ref(), private.as_ref(), "-out".as_ref(), public.as_ref()])?;
    Ok((std::fs::read_to_string(private)?, public))
}

/// One database per service, of this stack alone.
pub(crate) async fn databases(admin: &str, prefix: &str) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let mut conn = sqlx::PgConnection::connect(admin).await.context("connecting to Postgres")?;
    let mut urls = BTreeMap::new();
    for service in SERVICES {
        let name = format!("{}{}", prefix.replace('.', "_"), service.trim_end_matches("-svc"));
        // Made of digits and letters above; a database's name cannot be bound.
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut conn).await?;
        let (server, _) = admin.rsplit_once('/').context("the admin URL names a database")?;
        urls.insert(service, format!("{server}/{name}"));
    }
    conn.close().await?;
    Ok(urls)
}
