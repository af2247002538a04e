//! Connections: limits that really hold, and no transaction that outlives its owner.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::breaker::Breaker;
use engine::pool::{self, Plans, PoolOptions, is_outage, is_record_fault, waited_out};
use rand::RngExt;
use sqlx::{Connection, Executor, PgConnection};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Database, eventually, migrated};

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_in_force() {
    let (_database, pool) = migrated().await;
    for (name, value) in [
        ("search_path", "engine, projection"),
        ("statement_timeout", "30s"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_user_timeout", "25000"),
        ("plan_cache_mode", "force_custom_plan"),
        ("application_name", "test"),
    ] {
        let (found,): (String,) =
            sqlx::query_as("SELECT current_setting($1)").bind(name).fetch_one(&pool).await.unwrap();
        // Over a Unix socket there is no TCP to watch.
        assert!(found == value || (name.starts_with("tcp_") && found == "0"), "{name} is {found}, not {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_made_for_an_empty_table_goes_along_the_index_when_it_is_full() {
    let (database, _) = migrated().await;
    let options = PoolOptions { plans: Plans::ByKey, ..PoolOptions::new("test", 1) };
    let pool = pool::connect(&database.url, options).await.unwrap();
    let mut conn = pool.acquire().await.unwrap();
    let taken = "SELECT command_id FROM commands WHERE command_id = ANY($1)";
    for round in 0..10 {
        let found: Vec<(i64,)> = sqlx::query_as(taken).bind(vec![1_i64, 2]).fetch_all(&mut *conn).await.unwrap();
        assert_eq!(found.len(), if round == 0 { 0 } else { 2 });
        if round == 0 {
            conn.execute(
                "INSERT INTO commands (command_id, partition, sequence, event_type, subject, at)
                 SELECT n, 0, n, 'x', n, now() FROM generate_series(1, 20000) AS n",
            )
            .await
            .unwrap();
            // Making the indexes scanned it too.
            conn.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
            conn.execute("SELECT pg_stat_reset_single_table_counters('commands'::regclass)").await.unwrap();
        }
    }
    conn.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let (scans, generic): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'commands'),
                (SELECT generic_plans FROM pg_prepared_statements WHERE statement = $1)",
    )
    .bind(taken)
    .fetch_one(&mut *conn)
    .await
    .unwrap();
    assert_eq!((scans, generic), (0, 10), "scans of the table, executions without a plan of their own");
}

/// Transactions open on the other connections to this database, seen from outside: one cannot tell it of itself.
async fn open_transactions(outside: &mut PgConnection) -> Vec<(i32, String)> {
    sqlx::query_as(
        "SELECT pid, state FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'",
    )
    .fetch_all(outside)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_sqlx_knows_nothing_of_does_not_reach_the_next_caller() {
    let (database, _) = migrated().await;
    let pool = database.pool(1).await;
    let mut outside = PgConnection::connect(&database.url).await.unwrap();
    // What is left when the future of `begin` is dropped after its statement was sent; the second one also failed.
    for left in ["BEGIN; INSERT INTO facts (name, value) VALUES ('never', '')", "BEGIN; SELECT 1 / 0"] {
        let mut conn = pool.acquire().await.unwrap();
        drop(conn.execute(left).await);
        drop(conn);
        let next = pool.acquire().await.unwrap();
        assert_eq!(open_transactions(&mut outside).await, []);
        drop(next);
    }
    let (rows,): (i64,) = sqlx::query_as("SELECT count(*) FROM facts").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_dropped_anywhere_leaves_no_transaction_to_the_next_caller() {
    let (database, pool) = migrated().await;
    let mut outside = PgConnection::connect(&database.url).await.unwrap();
    let cancel = async |microseconds| {
        let work = async {
            let mut conn = pool.acquire().await?;
            let mut tx = conn.begin().await?;
            sqlx::query("INSERT INTO facts (name, value) VALUES ('never', '')").execute(&mut *tx).await?;
            std::future::pending::<Result<(), sqlx::Error>>().await
        };
        tokio::time::timeout(Duration::from_micros(microseconds), work).await.unwrap_err();
    };
    for round in 0..300 {
        let delays: [u64; 4] = std::array::from_fn(|_| rand::rng().random_range(0..2_000));
        tokio::join!(cancel(delays[0]), cancel(delays[1]), cancel(delays[2]), cancel(delays[3]));
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(pool.acquire().await.unwrap());
        }
        assert_eq!(open_transactions(&mut outside).await, [], "round {round}, delays {delays:?} us");
    }
    let (rows,): (i64,) = sqlx::query_as("SELECT count(*) FROM facts").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_speaks_of_a_row_is_a_records_fault() {
    let (_database, pool) = migrated().await;
    let fault = async |sql: &'static str| is_record_fault(&sqlx::query(sql).execute(&pool).await.unwrap_err());
    assert!(fault("SELECT 1 / 0").await);
    assert!(fault("SELECT 'x'::bigint").await);
    assert!(fault("INSERT INTO facts (name, value) VALUES (NULL, '')").await);
    assert!(fault("DO $$ BEGIN RAISE EXCEPTION 'what a trigger says'; END $$").await);
    let too_long =
        "INSERT INTO facts (name, value) SELECT string_agg(md5(n::text), ''), '' FROM generate_series(1, 400) n";
    assert!(fault(too_long).await);
    assert!(!fault("SELECT FROM no_such_table").await);
    for code in ["55P03", "40001", "40P01", "57014", "53300", "25P03"] {
        let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$");
        let error = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap_err();
        assert!(!is_record_fault(&error), "{code} is a dependency's failure");
    }
    assert!(!is_record_fault(&sqlx::Error::PoolTimedOut));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_by_itself_is_an_outage() {
    let (_database, pool) = migrated().await;
    for (code, passes) in [("57P01", true), ("53300", true), ("42P01", false), ("23505", false)] {
        let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$");
        let error = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap_err();
        assert_eq!(is_outage(&anyhow::Error::from(error).context("at the start")), passes, "{code}");
    }
    pool.close().await;
    assert!(is_outage(&sqlx::Error::PoolTimedOut.into()) && !is_outage(&anyhow::anyhow!("a broken build")));
}

#[tokio::test]
async fn a_step_is_taken_again_while_the_database_is_away() {
    let tries = AtomicUsize::new(0);
    let step = async || match tries.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Err(sqlx::Error::PoolTimedOut.into()),
        2 => Ok("done"),
        _ => Err(anyhow::anyhow!("a broken build")),
    };
    let breaker = Breaker::new("postgres", "Postgres", true);
    let told = AtomicUsize::new(0);
    let tell = |_| {
        told.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(waited_out(&breaker, tell, step).await.unwrap(), "done");
    assert_eq!(told.load(Ordering::Relaxed), 2);
    assert!(waited_out(&breaker, tell, step).await.is_err(), "what does not pass is told at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_a_postgres_that_starts_later() {
    let database = Database::empty().await;
    let target = sqlx::postgres::PgConnectOptions::clone(&database.url.parse().unwrap());
    let target = format!("{}:{}", target.get_host(), target.get_port());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = database.url.replace(&target, &format!("127.0.0.1:{port}"));
    let waiting = tokio::spawn(async move {
        let pool = pool::connect(&url, PoolOptions::new("early", 1)).await.unwrap();
        sqlx::query_as::<_, (i32,)>("SELECT 1").fetch_one(&pool).await.unwrap()
    });
    eventually(Duration::from_secs(1), async || {
        // Long enough for several tries.
        tokio::time::sleep(Duration::from_millis(600)).await;
        if waiting.is_finished() { Err("it did not wait") } else { Ok(()) }
    })
    .await;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(answer, (1,));
}
