//! Owners that err, die or stand still between two steps of which only one may count.
//!
//! Only in the test build, whose boundaries can be armed; the whole list of them is gone through by `e2e`, with real
//! services.

use std::time::{Duration, Instant};

use events::envelope::Headers;

use crate::child::Process;
use crate::held::{DLQ, letters};
use crate::support::{PARTITIONS, eventually};
use crate::toy::{Act, FOREIGN};
use crate::world::{SOON, World, key_of};

async fn gone(process: &mut Process) {
    eventually(SOON, async || if process.is_running() { Err("it runs") } else { Ok(()) }).await;
}

async fn owned_by(world: &World, owner: &str) {
    eventually(SOON, async || {
        let owners = sqlx::query_as("SELECT owner FROM processors").fetch_all(&world.pool).await.unwrap();
        let owned = owners.iter().filter(|(name,): &&(String,)| name == owner).count();
        if i32::try_from(owned) == Ok(PARTITIONS) { Ok(()) } else { Err(owners) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_owner_dies_before_its_commit_left_nothing() {
    let world = World::new().await;
    let mut doomed = Process::armed(&world, "doomed", &world.database.url, "C4=return(sigkill)");
    let key = key_of(0, 0);
    let id = world.command(key, Act::Add(1)).await;
    gone(&mut doomed).await;
    assert_eq!(world.history(key).await, Vec::<String>::new());
    let heir = world.start().await;
    world.applied(key, &[&format!("command {id}: add 1")]).await;
    heir.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_does_not_have_stays_in_the_outbox() {
    let world = World::new().await;
    let mute = Process::armed(&world, "mute", &world.database.url, "R1=return(err)");
    let key = key_of(0, 0);
    let mut expected = Vec::new();
    for amount in 1..4 {
        let id = world.command(key, Act::Add(amount)).await;
        expected.push(format!("command {id}: add {amount}"));
        world.applied(key, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    assert_eq!(world.log("toy.events").await.len(), 0);
    assert_eq!(world.count("SELECT count(*) FROM outbox").await, 3);
    mute.kill();
    let heir = world.start().await;
    heir.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_written_with_its_batch_or_not_at_all() {
    let world = World::new().await;
    let process = Process::armed(&world, "erring", &world.database.url, "D4=1*return(err)->off");
    let strange = world.raw(FOREIGN, 0, Some(b"1"), Some(b"strange"), &Headers::default()).await;
    let id = world.command(key_of(0, 0), Act::Add(1)).await;
    world.applied(key_of(0, 0), &[&format!("command {id}: add 1")]).await;
    world.settled().await;
    assert_eq!(letters(&world, DLQ).await, [format!("RecordDied strange NO_SEQUENCE 1 {strange}")]);
    process.kill();
    let heir = world.start().await;
    heir.stop().await;
    world.finish().await;
}

/// The other one is stopped with a batch begun, and wakes when its heir has the epoch but has begun nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_wakes_commits_nothing_even_before_its_heir_does() {
    let world = World::new().await;
    let sleeper = Process::armed(&world, "sleeper", &world.database.url, "C1=1*return(stop)->off");
    let key = key_of(0, 0);
    let id = world.command(key, Act::Add(1)).await;
    // Before that a heir would get its share of the partitions, and might apply the command.
    eventually(SOON, async || if sleeper.is_stopped() { Ok(()) } else { Err("it goes on") }).await;
    let heir = Process::armed(&world, "heir", &world.database.url, "E3=return(delay:6000)");
    owned_by(&world, "heir").await;
    sleeper.wake();
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(world.history(key).await, Vec::<String>::new(), "a former owner has committed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.applied(key, &[&format!("command {id}: add 1")]).await;
    sleeper.kill();
    heir.kill();
    world.finish().await;
}

/// The bump waits for the row that an open batch has locked; what that batch then commits must be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_while_the_next_owner_waits_is_published_by_it() {
    let world = World::new().await;
    // It takes longer to give back than its owner waits for it, and publishes nothing itself.
    let failpoints = "C1=2*return(delay:4500)->off;C4=return(delay:4500);R1=return(err)";
    let sleeper = Process::armed(&world, "sleeper", &world.database.url, failpoints);
    owned_by(&world, "sleeper").await;
    let heir = Process::start(&world, "heir", &world.database.url);
    let mut expected = Vec::new();
    for partition in 0..PARTITIONS {
        let key = key_of(partition, 0);
        expected.push((key, format!("command {}: add 1", world.command(key, Act::Add(1)).await)));
    }
    for (key, expected) in &expected {
        world.applied(*key, &[expected]).await;
    }
    sleeper.kill();
    world.settled().await;
    heir.kill();
    world.finish().await;
}
