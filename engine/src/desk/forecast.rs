//! What a redrive would do: each record in a transaction of its own that is rolled back.
//!
//! Records of one key are tried one by one, as if each were alone. Effects are not tried: a call cannot be rolled back.

use events::id::EventId;
use events::record::Recorded;
use sqlx::{Connection, PgConnection};

use super::table::find;
use super::{Address, Desk, Forecast, Selection};
use crate::held_store;
use crate::intake;
use crate::pool::is_record_fault;
use crate::service::{Homes, Service};
use crate::store;

impl<S: Service> Desk<S> {
    pub(super) async fn try_out(&self, chosen: Selection<'_>) -> anyhow::Result<Vec<Forecast>> {
        let mut conn = self.pool.acquire().await?;
        let found = find(&mut conn, chosen, chosen.state(), true).await?;
        let mut forecasts = Vec::with_capacity(found.len());
        for address in found.into_iter().map(|row| row.kept().address) {
            let called = "it would be called once more; only that can tell";
            let (applied, outcome) = match &address.effect {
                Some(_) => (None, called.to_owned()),
                None => match self.try_one(&mut conn, &address).await? {
                    Ok(outcome) => (Some(true), outcome),
                    Err(outcome) => (Some(false), outcome),
                },
            };
            forecasts.push(Forecast { address, applied, outcome });
        }
        Ok(forecasts)
    }

    /// What one record would lead to, or why it would fail.
    pub(super) async fn try_one(
        &self,
        conn: &mut PgConnection,
        address: &Address,
    ) -> anyhow::Result<Result<String, String>> {
        let description = self.service.describe();
        let input = description.inputs.iter().find(|input| self.kafka.topic(input.name) == address.topic);
        let Some(input) = input else { return Ok(Err(format!("this build does not read {}", address.topic))) };
        let row = held_store::read_one(conn, address.partition, &address.place()).await?;
        let Some(row) = row else { return Ok(Err("it is not kept any more".to_owned())) };
        let (service, partitions) = (self.service.as_ref(), self.kafka.partitions);
        let meant = intake::judge_again(service, &self.codec, *input, partitions, row.source_sequence, &row.record);
        let meant = match meant {
            Ok(Some(meaning)) => meaning.of(row.record),
            Ok(None) => return Ok(Ok("nothing: it is of no interest here".to_owned())),
            Err(flaw) => return Ok(Err(format!("{}: {}", flaw.code, flaw.message))),
        };
        let mut tx = conn.begin().await?;
        let result = self.apply(&mut tx, &meant.input).await;
        tx.rollback().await?;
        match result {
            Ok(outcome) => Ok(outcome),
            Err(error) if is_record_fault(&error) => Ok(Err(format!("Postgres refuses it: {error}"))),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn apply(
        &self,
        conn: &mut PgConnection,
        input: &S::Input,
    ) -> Result<Result<String, String>, sqlx::Error> {
        let now = store::now(conn).await?;
        let mut states = self.service.load(conn, &[input], &[]).await?;
        match self.service.decide(&states, input, now) {
            Err(failure) => Ok(Err(failure.to_string())),
            Ok(None) => Ok(Ok("nothing: it changes nothing any more".to_owned())),
            Ok(Some(event)) => {
                let type_name = self.service.about(&event).type_name.to_owned();
                let recorded = Recorded { event, id: EventId(1), sequence: 1, at: now };
                self.service.evolve(&mut states, &recorded);
                self.service.save(conn, Homes { partitions: self.kafka.partitions }, &states).await?;
                sqlx::query("SET CONSTRAINTS ALL IMMEDIATE").execute(conn).await?;
                Ok(Ok(type_name))
            }
        }
    }
}
