//! Faults of a test's broker and database.

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use sqlx::Executor;

use crate::support::eventually;
use crate::toy::EVENTS;
use crate::world::{SOON, World};

impl World {
    /// Makes the broker refuse every record of the own events topic, or take them again.
    pub(crate) async fn refuse_events(&self, refuse: bool) {
        let admin: AdminClient<DefaultClientContext> = self.kafka.reader_config().create().unwrap();
        let topic = self.kafka.topic(EVENTS);
        let bytes = if refuse { "1" } else { "1000000" };
        let config = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", bytes);
        let altered = admin.alter_configs([&config], &AdminOptions::new()).await.unwrap();
        assert!(altered.iter().all(Result::is_ok), "{altered:?}");
        // Until the broker has learned it from its controller.
        eventually(SOON, async || {
            let topic = ResourceSpecifier::Topic(&topic);
            let described = admin.describe_configs([&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
            let found = described.entry_map().get("max.message.bytes").and_then(|entry| entry.value.clone());
            if found.as_deref() == Some(bytes) { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Makes Postgres refuse every row to which 666 was added, or take it again.
    pub(crate) async fn refuse_666(&self, refuse: bool) {
        let refusing = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF array_to_string(NEW.history, ' ') LIKE '%add 666%' THEN RAISE EXCEPTION 'never'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON projection.entries FOR EACH ROW
             EXECUTE FUNCTION refuse();";
        let taking = "DROP TRIGGER refuse ON projection.entries";
        self.pool.execute(if refuse { refusing } else { taking }).await.unwrap();
    }
}
