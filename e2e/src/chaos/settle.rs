//! After the faults: somebody is served again soon, and everything comes to its end.
//!
//! Whether the end is the right one is the checker's to say.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Connection, PgConnection};

use super::field::Field;
use crate::client::eventually;
use crate::desk;
use crate::stack::SERVICES;

/// An order placed after the faults is confirmed within this time.
const PROGRESS_WITHIN: Duration = Duration::from_secs(30);
/// Everything is at its end within this time.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is under way in a service's database, as one number per question.
const OPEN: [(&str, &str, &str); 6] = [
    ("order-svc", "orders that are not final", "SELECT count(*) FROM projection.orders WHERE status = 'PLACED'"),
    ("payment-svc", "calls to the gateway", "SELECT count(*) FROM projection.payments WHERE call_kind IS NOT NULL"),
    ("inventory-svc", "reservations", "SELECT count(*) FROM projection.reservations WHERE status = 'RESERVED'"),
    ("notify-svc", "notices", "SELECT count(*) FROM projection.notices WHERE email = 'PENDING' OR sms = 'PENDING'"),
    ("*", "rows of the outbox", "SELECT count(*) FROM engine.outbox"),
    ("*", "held records", "SELECT count(*) FROM projection.held WHERE NOT dead"),
];

/// How long it took until somebody was served.
///
/// # Errors
/// When nobody was, in time.
pub(super) async fn progress(field: &mut Field, patience: u32) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut probes = Vec::new();
    let mut tried = Instant::now() - Duration::from_secs(1);
    eventually("progress after the faults", PROGRESS_WITHIN * patience, async || {
        field.look_after()?;
        if tried.elapsed() >= Duration::from_secs(1) {
            tried = Instant::now();
            probes.extend(field.load.probe().await?);
        }
        for probe in &probes {
            if field.load.status(probe).await.as_deref() == Some("CONFIRMED") {
                return Ok(Ok(began.elapsed()));
            }
        }
        Ok(Err(format!("{} probes were accepted, none is confirmed", probes.len())))
    })
    .await
}

/// How long it took until nothing was under way.
///
/// # Errors
/// When something still is, in the end.
pub(super) async fn settled(field: &mut Field, patience: u32) -> anyhow::Result<Duration> {
    let began = Instant::now();
    eventually("the end of everything", SETTLED_WITHIN * patience, async || {
        field.look_after()?;
        redrive(field)?;
        let open = under_way(field).await?;
        if open.is_empty() {
            return Ok(Ok(began.elapsed()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Err(open.join(", ")))
    })
    .await
}

/// An operator's work: what was tried too often while the other side was out of order is tried once more, and so is what
/// the build before could not read.
fn redrive(field: &Field) -> anyhow::Result<()> {
    for service in SERVICES {
        let (_, groups) = desk::ask(&field.stack, &["dlq", "list", service])?;
        let is_mended =
            |group: &&Value| ["effect", "undecodable"].contains(&group["class"].as_str().unwrap_or_default());
        for group in groups.as_array().into_iter().flatten().filter(is_mended) {
            let group = group["group"].as_str().unwrap_or_default();
            desk::ask(&field.stack, &["dlq", "redrive", service, "--group", group, "--reason", "all is well again"])?;
        }
    }
    Ok(())
}

async fn under_way(field: &Field) -> anyhow::Result<Vec<String>> {
    let mut open = Vec::new();
    for (service, url) in &field.stack.databases {
        let mut conn = tokio::time::timeout(ANSWER_WITHIN, PgConnection::connect(url)).await??;
        for (of, what, question) in OPEN {
            if of == "*" || of == *service {
                let count: i64 = sqlx::query_scalar(question).fetch_one(&mut conn).await?;
                if count > 0 {
                    open.push(format!("{service}: {count} {what}"));
                }
            }
        }
        conn.close().await?;
    }
    let lag: Value = serde_json::from_str(&field.stack.orderctl(&["--json", "lag"])?)?;
    let behind: i64 = lag.as_array().into_iter().flatten().filter_map(|one| one["events"].as_i64()).sum();
    if behind > 0 {
        open.push(format!("{behind} events behind"));
    }
    Ok(open)
}
