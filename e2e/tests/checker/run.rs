//! Whether the run was one, and what it took: I15 and I16.

use e2e::evidence::{Fault, Sample};
use e2e::history::Class;
use serde_json::Value;

use crate::world::{BEGAN, World};
use crate::{judged, sees};

#[test]
fn i15_vacuity() {
    let hits = |world: &mut World| {
        world.folder.run.expects.failpoints.insert("C5".to_owned(), 1);
    };
    sees("a failpoint not hit", hits, &["I15"], &["C5"]);
    let faults = |world: &mut World| {
        world.folder.run.expects.faults.insert("kill".to_owned(), 1);
    };
    sees("a fault not done", faults, &["I15"], &["kill"]);
    let felt = |world: &mut World| {
        let (at, kind, target) = ((BEGAN + 59_000) * 1_000, "kill".to_owned(), "order-svc".to_owned());
        world.folder.faults.push(Fault { at, kind, target, detail: Value::Null, felt: Some(false) });
        world.folder.run.expects.felt.push("kill".to_owned());
    };
    sees("a fault not felt", felt, &["I15"], &["felt"]);
    let unserved = |world: &mut World| {
        let all = world.folder.history.len();
        let info = world.folder.history.iter_mut().take(all / 2);
        info.for_each(|one| one.class = Class::Info);
    };
    sees("clients not served", unserved, &["I15"], &["percent"]);
    let rare = |world: &mut World| {
        world.folder.run.expects.counters.insert("held_released".to_owned(), 9);
    };
    sees("a rare path not taken", rare, &["I15"], &["held_released", "2"]);
    let expired = |world: &mut World| {
        world.folder.run.expects.statuses.insert("EXPIRED".to_owned(), 1);
    };
    sees("no order expired", expired, &["I15"], &["EXPIRED"]);
}

#[test]
fn i16_resources() {
    let sample = |outbox_bytes| {
        let service = "order-svc".to_owned();
        let (rss_bytes, db_connections) = (Some(80_000_000), Some(10));
        Sample { at: 0, service, instance: 0, rss_bytes, db_connections, outbox_bytes: Some(outbox_bytes) }
    };
    let mut world = World::honest();
    world.folder.run.limits.outbox_bytes.insert("*".to_owned(), 1_000);
    world.folder.resources.push(sample(1_000));
    assert!(judged(&world).valid);
    let large = |world: &mut World| {
        world.folder.run.limits.outbox_bytes.insert("*".to_owned(), 1_000);
        world.folder.resources.push(sample(1_001));
    };
    sees("an outbox too large", large, &["I16"], &["order-svc", "1001"]);
    let unmeasured = |world: &mut World| {
        world.folder.run.limits.rss_bytes.insert("*".to_owned(), 1);
    };
    sees("nothing measured", unmeasured, &["I16"], &["nothing was measured"]);
}
