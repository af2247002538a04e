//! The statements of the desk: the table of held and dead records, and that of acts.
//!
//! What they mean is [`super`]'s.

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Address, Asked, By, Deed, Desk, Group, Kept, Selection, Shown, Standing, Which};
use crate::clock;
use crate::held_store;
use crate::service::Service;
use crate::store;

/// A row as the desk reads it.
#[derive(sqlx::FromRow)]
pub(super) struct Found {
    partition: i32,
    topic: String,
    source_offset: i64,
    key: Option<i64>,
    event_type: Option<String>,
    schema_id: Option<i64>,
    class: String,
    code: String,
    message: String,
    dead: bool,
    attempts: i32,
    first_at: OffsetDateTime,
    last_at: OffsetDateTime,
}

impl Found {
    fn group(&self) -> String {
        group_of(&self.class, &self.code, self.event_type.as_deref(), self.schema_id)
    }

    pub(super) fn kept(self) -> Kept {
        let state = match (self.dead, self.attempts) {
            (true, _) => "dead",
            (false, 0) => "waiting",
            (false, _) => "held",
        };
        Kept {
            group: self.group(),
            address: Address { topic: self.topic, partition: self.partition, offset: self.source_offset },
            state,
            key: self.key.map(|key| key.to_string()),
            event_type: self.event_type,
            class: self.class,
            code: self.code,
            message: self.message,
            attempts: self.attempts,
            first_at: clock::from_utc(self.first_at),
            last_at: clock::from_utc(self.last_at),
        }
    }
}

/// A group as Postgres counts it.
#[derive(sqlx::FromRow)]
struct FoundGroup {
    class: String,
    code: String,
    event_type: Option<String>,
    schema_id: Option<i64>,
    count: i64,
    keys: i64,
    waiting: i64,
    first_at: OffsetDateTime,
    last_at: OffsetDateTime,
    message: String,
    topic: String,
    partition: i32,
    source_offset: i64,
}

impl FoundGroup {
    fn group(self) -> Group {
        Group {
            group: group_of(&self.class, &self.code, self.event_type.as_deref(), self.schema_id),
            class: self.class,
            code: self.code,
            event_type: self.event_type,
            schema_id: self.schema_id,
            count: self.count,
            keys: self.keys,
            waiting: self.waiting,
            first_at: clock::from_utc(self.first_at),
            last_at: clock::from_utc(self.last_at),
            message: self.message,
            sample: Address { topic: self.topic, partition: self.partition, offset: self.source_offset },
        }
    }
}

fn group_of(class: &str, code: &str, event_type: Option<&str>, schema_id: Option<i64>) -> String {
    let schema = schema_id.map(|id| id.to_string()).unwrap_or_default();
    let digest = Sha256::digest([class, code, event_type.unwrap_or_default(), &schema].join("\n"));
    hex::encode(&digest[..4])
}

impl Selection<'_> {
    /// One record may also be a held one.
    pub(super) fn state(&self) -> Option<bool> {
        if matches!(self.which, Which::One(_)) { None } else { Some(true) }
    }
}

fn only(address: &Address) -> Selection<'_> {
    Selection { which: Which::One(address), failed_before: None, limit: 1 }
}

/// Rows that are meant, the oldest first; `asked`: also those of which something is asked for.
pub(super) async fn find(
    conn: &mut PgConnection,
    chosen: Selection<'_>,
    dead: Option<bool>,
    asked: bool,
) -> Result<Vec<Found>, sqlx::Error> {
    let Selection { which, failed_before, limit } = chosen;
    let one = match which {
        Which::One(address) => Some(address),
        Which::All | Which::Group(_) | Which::Key(_) => None,
    };
    let key = if let Which::Key(key) = which { Some(key) } else { None };
    let rows: Vec<Found> = sqlx::query_as(
        "SELECT partition, topic, source_offset, key, event_type, schema_id, class, code, message, dead, attempts,
                first_at, last_at
         FROM held AS h
         WHERE ($1::bool IS NULL OR dead = $1) AND ($2::bigint IS NULL OR key = $2)
           AND ($3::text IS NULL OR (topic = $3 AND partition = $4 AND source_offset = $5))
           AND ($7::timestamptz IS NULL OR last_at < $7)
           AND ($6 OR NOT EXISTS (SELECT FROM acts AS a WHERE a.partition = h.partition AND a.topic = h.topic
                                  AND a.source_offset = h.source_offset))
         ORDER BY first_at, partition, number, topic, source_offset",
    )
    .bind(dead)
    .bind(key)
    .bind(one.map(|address| &address.topic))
    .bind(one.map(|address| address.partition))
    .bind(one.map(|address| address.offset))
    .bind(asked)
    .bind(failed_before.map(clock::to_utc))
    .fetch_all(conn)
    .await?;
    let meant = rows.into_iter().filter(|row| match which {
        Which::Group(name) => row.group() == name,
        Which::All | Which::Key(_) | Which::One(_) => true,
    });
    Ok(meant.take(usize::try_from(limit).unwrap_or(0)).collect())
}

impl<S: Service> Desk<S> {
    pub(super) async fn read_groups(&self) -> anyhow::Result<Vec<Group>> {
        let mut conn = self.pool.acquire().await?;
        let rows: Vec<FoundGroup> = sqlx::query_as(
            "SELECT class, code, event_type, schema_id, count(*) AS count, count(DISTINCT key) AS keys,
                    (SELECT count(*) FROM held AS w
                     WHERE NOT w.dead AND w.key = ANY (array_agg(d.key)) AND d.class NOT IN ('strange', 'poison'))
                        AS waiting,
                    min(first_at) AS first_at, max(last_at) AS last_at,
                    (array_agg(message ORDER BY last_at DESC))[1] AS message,
                    (array_agg(topic ORDER BY first_at, partition, source_offset))[1] AS topic,
                    (array_agg(partition ORDER BY first_at, partition, source_offset))[1] AS partition,
                    (array_agg(source_offset ORDER BY first_at, partition, source_offset))[1] AS source_offset
             FROM held AS d WHERE dead GROUP BY class, code, event_type, schema_id
             ORDER BY count(*) DESC, max(last_at) DESC",
        )
        .fetch_all(&mut *conn)
        .await?;
        Ok(rows.into_iter().map(FoundGroup::group).collect())
    }

    pub(super) async fn read_list(&self, chosen: Selection<'_>, dead: bool) -> anyhow::Result<Vec<Kept>> {
        let mut conn = self.pool.acquire().await?;
        let found = find(&mut conn, chosen, Some(dead), true).await?;
        Ok(found.into_iter().map(Found::kept).collect())
    }

    pub(super) async fn read_one(&self, address: &Address) -> anyhow::Result<Option<Shown>> {
        let mut conn = self.pool.acquire().await?;
        let Some(found) = find(&mut conn, only(address), None, true).await?.pop() else { return Ok(None) };
        let topics = [address.topic.clone()];
        let Some((_, row)) =
            held_store::read(&mut conn, address.partition, &topics, &[(0, address.offset)]).await?.pop()
        else {
            return Ok(None);
        };
        let behind: Vec<(String, i32, i64)> = sqlx::query_as(
            "SELECT topic, partition, source_offset FROM held
             WHERE partition = $1 AND key = $2 AND NOT dead AND number > $3 ORDER BY number",
        )
        .bind(address.partition)
        .bind(found.key.filter(|_| row.flaw.class.keeps_key()))
        .bind(row.number)
        .fetch_all(&mut *conn)
        .await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Some(Shown {
            sequence: row.source_sequence,
            headers: row.record.headers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect(),
            value_hex: row.record.value.as_deref().map(hex::encode),
            behind: behind.into_iter().map(|(topic, partition, offset)| Address { topic, partition, offset }).collect(),
            kept: found.kept(),
        }))
    }

    pub(super) async fn write_acts(&self, deed: Deed, chosen: Selection<'_>, by: By<'_>) -> anyhow::Result<Asked> {
        let mut conn = self.pool.acquire().await?;
        let at = store::now(&mut conn).await?;
        let mut found = find(&mut conn, chosen, chosen.state(), false).await?;
        if deed == Deed::Discard {
            found.retain(|row| row.event_type.as_deref().is_none_or(|name| self.service.may_be_discarded(name)));
        }
        let kept: Vec<Address> = found.into_iter().map(|row| row.kept().address).collect();
        sqlx::query(
            "INSERT INTO acts (partition, topic, source_offset, act, sub, reason)
             SELECT unnest($1::int[]), unnest($2::text[]), unnest($3::bigint[]), $4, $5, $6
             ON CONFLICT (partition, topic, source_offset) DO NOTHING",
        )
        .bind(kept.iter().map(|address| address.partition).collect::<Vec<_>>())
        .bind(kept.iter().map(|address| address.topic.clone()).collect::<Vec<_>>())
        .bind(kept.iter().map(|address| address.offset).collect::<Vec<_>>())
        .bind(deed.as_str())
        .bind(by.sub)
        .bind(by.reason)
        .execute(&mut *conn)
        .await?;
        Ok(Asked { at, records: kept })
    }

    pub(super) async fn look_at(&self, records: &[Address]) -> anyhow::Result<Standing> {
        let mut conn = self.pool.acquire().await?;
        let rows: Vec<(bool, bool)> = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM acts AS a WHERE (a.partition, a.topic, a.source_offset)
                                = (u.partition, u.topic, u.source_offset)),
                    EXISTS (SELECT FROM held AS h WHERE (h.partition, h.topic, h.source_offset)
                                = (u.partition, u.topic, u.source_offset))
             FROM (SELECT unnest($1::int[]) AS partition, unnest($2::text[]) AS topic,
                          unnest($3::bigint[]) AS source_offset) AS u",
        )
        .bind(records.iter().map(|address| address.partition).collect::<Vec<_>>())
        .bind(records.iter().map(|address| address.topic.clone()).collect::<Vec<_>>())
        .bind(records.iter().map(|address| address.offset).collect::<Vec<_>>())
        .fetch_all(&mut *conn)
        .await?;
        let mut standing = Standing::default();
        for (asked, kept) in rows {
            match (asked, kept) {
                (true, _) => standing.asked += 1,
                (false, true) => standing.kept += 1,
                (false, false) => standing.settled += 1,
            }
        }
        Ok(standing)
    }
}
