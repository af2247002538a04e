//! An operator's side of the tests: what orderctl answers about held and dead records, and the mistake that makes some.
//!
//! The mistake is a trigger in order-svc's database, as a wrong constraint would be.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};

use crate::client::eventually;
use crate::stack::Stack;

const WITHIN: Duration = Duration::from_secs(90);
const MENDED: &str = "DROP TRIGGER refused ON projection.orders; DROP FUNCTION refused();";

/// From now on Postgres refuses this status of every so-many-th order.
///
/// # Errors
/// When the database does not answer, or refuses already.
pub async fn refuse(database_url: &str, status: &str, every: i64) -> anyhow::Result<()> {
    let mistake = format!(
        "CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.status = '{status}' AND NEW.order_id % {every} = 0 THEN
                 RAISE EXCEPTION 'never';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refused BEFORE INSERT OR UPDATE ON projection.orders FOR EACH ROW
         EXECUTE FUNCTION refused();"
    );
    execute(database_url, mistake).await
}

/// The mistake is mended.
///
/// # Errors
/// When the database does not answer, or does not refuse.
pub async fn accept_again(database_url: &str) -> anyhow::Result<()> {
    execute(database_url, MENDED.to_owned()).await
}

async fn execute(database_url: &str, statements: String) -> anyhow::Result<()> {
    let mut database = PgConnection::connect(database_url).await?;
    // Made above, of constants and a number.
    database.execute(sqlx::AssertSqlSafe(statements)).await?;
    Ok(database.close().await?)
}

/// Runs orderctl with `--json`; whether it succeeded, and its last line.
///
/// # Errors
/// When it cannot be started, or printed no JSON.
pub fn ask(stack: &Stack, arguments: &[&str]) -> anyhow::Result<(bool, Value)> {
    let (succeeded, printed, said) = stack.try_orderctl(&[&["--json"], arguments].concat())?;
    let last = printed.lines().last().with_context(|| format!("{arguments:?} printed nothing: {said}"))?;
    Ok((succeeded, serde_json::from_str(last)?))
}

/// The dead letters of a service, by what they fail of, as soon as there are so many.
///
/// # Errors
/// When there are not in time.
pub async fn dead(stack: &Stack, service: &str, count: u64) -> anyhow::Result<Value> {
    eventually("dead letters", WITHIN, async || {
        let (_, groups) = ask(stack, &["dlq", "list", service])?;
        let found: u64 = groups.as_array().into_iter().flatten().filter_map(|group| group["count"].as_u64()).sum();
        Ok(if found == count { Ok(groups) } else { Err(groups.to_string()) })
    })
    .await
}

/// Whether a service has held or dead records.
///
/// # Errors
/// As [`ask`].
pub fn is_empty(stack: &Stack, service: &str) -> anyhow::Result<bool> {
    let (_, held) = ask(stack, &["held", service])?;
    let (_, dead) = ask(stack, &["dlq", "list", service])?;
    Ok([held, dead].iter().all(|all| all.as_array().is_some_and(Vec::is_empty)))
}

/// Redrives everything until nothing is held or dead.
///
/// # Errors
/// When something stays.
pub async fn redrive_all(stack: &Stack, service: &str) -> anyhow::Result<()> {
    eventually("nothing held or dead", WITHIN, async || {
        ask(stack, &["dlq", "redrive", service, "--all", "--reason", "mended"])?;
        Ok(if is_empty(stack, service)? { Ok(()) } else { Err("something is".to_owned()) })
    })
    .await
}
