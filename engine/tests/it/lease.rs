//! Snowflake IDs: none is issued twice, whatever clocks, processes and Postgres do.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use engine::clock;
use engine::lease::IdIssuer;
use events::snowflake::{EPOCH_MS, unpack};
use events::time::Timestamp;
use rand::RngExt;
use sqlx::{Executor, PgPool};

use crate::support::{eventually, migrated};

const SERVICE: u8 = 3;

/// The wall clock, off by so many milliseconds.
macro_rules! wrong_clock {
    ($off:ident, $clock:ident) => {
        static $off: AtomicI64 = AtomicI64::new(0);
        fn $clock() -> Timestamp {
            Timestamp(clock::wall().0 + $off.load(Ordering::SeqCst))
        }
    };
}

async fn soon(issuer: &IdIssuer) -> Option<i64> {
    // Waits for a notice, for no statement: it may be given up.
    tokio::time::timeout(Duration::from_millis(500), issuer.issue()).await.ok()
}

async fn mark(pool: &PgPool, instance: u8) -> i64 {
    let row: (i64,) = sqlx::query_as("SELECT mark_ms FROM leases WHERE service = $1 AND instance = $2")
        .bind(i32::from(SERVICE))
        .bind(i32::from(instance))
        .fetch_one(pool)
        .await
        .unwrap();
    row.0
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_together_get_numbers_of_their_own() {
    let (database, _pool) = migrated().await;
    let mut starting = Vec::new();
    for process in 0..12 {
        let pool = database.pool(1).await;
        starting.push(tokio::spawn(async move {
            let issuer = IdIssuer::start(pool, SERVICE, &format!("p{process}")).await.unwrap();
            let mut ids = Vec::new();
            for _ in 0..2_000 {
                ids.push(issuer.issue().await);
            }
            (issuer.instance(), ids)
        }));
    }
    let (mut numbers, mut ids) = (HashSet::new(), HashSet::new());
    for started in starting {
        let (number, issued) = started.await.unwrap();
        assert!(numbers.insert(number), "number {number} was given twice");
        for id in issued {
            assert!(ids.insert(id), "{id} was issued twice");
            let parts = unpack(id).unwrap();
            assert_eq!((parts.service, parts.instance), (SERVICE, number));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_stays_below_the_mark_that_is_committed() {
    wrong_clock!(OFF, stopped);
    fn frozen() -> Timestamp {
        static AT: std::sync::OnceLock<Timestamp> = std::sync::OnceLock::new();
        *AT.get_or_init(stopped)
    }
    let (_database, pool) = migrated().await;
    let issuer = IdIssuer::start_with_clock(pool.clone(), SERVICE, "p", frozen).await.unwrap();
    let mut last = 0;
    for _ in 0..50_000 {
        let id = issuer.issue().await;
        assert!(id > last, "a clock that stands still repeats nothing");
        last = id;
    }
    let millis = i64::try_from(unpack(last).unwrap().millis).unwrap() + EPOCH_MS;
    assert!(millis > frozen().0 && millis < mark(&pool, issuer.instance()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_clock_set_back_takes_another_number() {
    wrong_clock!(OFF, back);
    let (_database, pool) = migrated().await;
    let first = IdIssuer::start_with_clock(pool.clone(), SERVICE, "p", back).await.unwrap();
    let before = first.issue().await;
    drop(first);
    OFF.store(-5_000, Ordering::SeqCst);
    let second = IdIssuer::start_with_clock(pool, SERVICE, "p", back).await.unwrap();
    let after = second.issue().await;
    assert_ne!(unpack(before).unwrap().instance, unpack(after).unwrap().instance);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_number_is_taken_again_above_its_mark() {
    let (_database, pool) = migrated().await;
    let passed = clock::wall().0 - 1;
    sqlx::query("INSERT INTO leases (service, instance, holder, mark_ms) VALUES ($1, 9, 'gone', $2)")
        .bind(i32::from(SERVICE))
        .bind(passed)
        .execute(&pool)
        .await
        .unwrap();
    let issuer = IdIssuer::start(pool, SERVICE, "p").await.unwrap();
    let parts = unpack(issuer.issue().await).unwrap();
    assert_eq!(parts.instance, 9);
    assert!(i64::try_from(parts.millis).unwrap() + EPOCH_MS > passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_past_its_mark_issues_nothing_of_it() {
    wrong_clock!(OFF, slept);
    let (_database, pool) = migrated().await;
    let issuer = IdIssuer::start_with_clock(pool.clone(), SERVICE, "sleeper", slept).await.unwrap();
    let (number, before) = (issuer.instance(), issuer.issue().await);
    // Meanwhile another process took the number, as `take_number` does once the mark has passed.
    sqlx::query("UPDATE leases SET holder = 'other', mark_ms = mark_ms + 30000 WHERE service = $1 AND instance = $2")
        .bind(i32::from(SERVICE))
        .bind(i32::from(number))
        .execute(&pool)
        .await
        .unwrap();
    OFF.store(15_000, Ordering::SeqCst);
    assert_eq!(issuer.try_issue(), None, "its mark has passed");
    let after = soon(&issuer).await.unwrap();
    assert_ne!(unpack(after).unwrap().instance, number);
    assert_ne!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_a_minute_ahead_of_postgres_is_refused() {
    wrong_clock!(OFF, ahead);
    let (_database, pool) = migrated().await;
    let running = IdIssuer::start_with_clock(pool.clone(), SERVICE, "p", ahead).await.unwrap();
    OFF.store(3_600_000, Ordering::SeqCst);
    let error = IdIssuer::start_with_clock(pool.clone(), SERVICE, "q", ahead).await.unwrap_err();
    assert!(error.to_string().contains("clock"), "{error}");
    assert_eq!(soon(&running).await, None, "a running process waits until its clock is right");
    OFF.store(0, Ordering::SeqCst);
    eventually(Duration::from_secs(5), async || soon(&running).await.ok_or("no ID")).await;
    let (granted,): (i64,) = sqlx::query_as("SELECT max(mark_ms) FROM leases").fetch_one(&pool).await.unwrap();
    assert!(granted < clock::wall().0 + 61_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_fails_ids_end_at_the_mark_and_then_go_on() {
    wrong_clock!(OFF, later);
    let (_database, pool) = migrated().await;
    let issuer = IdIssuer::start_with_clock(pool.clone(), SERVICE, "p", later).await.unwrap();
    let granted = mark(&pool, issuer.instance()).await;
    pool.execute("ALTER TABLE leases RENAME TO gone").await.unwrap();
    OFF.store(9_000, Ordering::SeqCst);
    let last = soon(&issuer).await.unwrap();
    assert!(i64::try_from(unpack(last).unwrap().millis).unwrap() + EPOCH_MS < granted);
    OFF.store(11_000, Ordering::SeqCst);
    assert_eq!(soon(&issuer).await, None);
    pool.execute("ALTER TABLE gone RENAME TO leases").await.unwrap();
    let next = eventually(Duration::from_secs(5), async || soon(&issuer).await.ok_or("no ID")).await;
    assert!(next > last);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_numbers_taken_a_start_says_so() {
    let (_database, pool) = migrated().await;
    sqlx::query(
        "INSERT INTO leases (service, instance, holder, mark_ms)
         SELECT $1, instance, 'p', $2 FROM generate_series(0, 127) AS instance",
    )
    .bind(i32::from(SERVICE))
    .bind(clock::wall().0 + 30_000)
    .execute(&pool)
    .await
    .unwrap();
    let error = IdIssuer::start(pool.clone(), SERVICE, "q").await.unwrap_err();
    assert!(error.to_string().contains("no instance number"), "{error}");
    IdIssuer::start(pool, SERVICE + 1, "q").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_come_sleep_and_go_on_wandering_clocks_repeat_nothing() {
    wrong_clock!(OFF, wandering);
    let (_database, pool) = migrated().await;
    let seed: u64 = rand::random();
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let (mut ids, mut alive) = (HashSet::new(), Vec::<IdIssuer>::new());
    for round in 0..60 {
        OFF.store(random.random_range(-30_000..40_000), Ordering::SeqCst);
        if alive.len() < 4 && random.random_bool(0.6) {
            let name = format!("p{round}");
            alive.push(IdIssuer::start_with_clock(pool.clone(), SERVICE, &name, wandering).await.unwrap());
        } else if random.random_bool(0.3) && !alive.is_empty() {
            alive.swap_remove(random.random_range(0..alive.len()));
        }
        for issuer in &alive {
            for _ in 0..50 {
                let Some(id) = soon(issuer).await else { break };
                assert!(ids.insert(id), "{id} was issued twice (seed {seed}, round {round})");
            }
        }
    }
    assert!(ids.len() > 1_000, "only {} IDs in all rounds (seed {seed})", ids.len());
}
