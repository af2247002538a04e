//! The statements of the desk: the table of held and dead records, and that of acts.
//!
//! What they mean is [`super`]'s.

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Address, Asked, By, DeadLetters, Deed, Desk, Group, Kept, Selection, Shown, Standing, Which};
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
    effect: String,
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
            address: address((self.topic, self.partition, self.source_offset, self.effect)),
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
    effect: String,
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
            sample: address((self.topic, self.partition, self.source_offset, self.effect)),
        }
    }
}

fn address((topic, partition, offset, effect): (String, i32, i64, String)) -> Address {
    Address { topic, partition, offset, effect: Some(effect).filter(|effect| !effect.is_empty()) }
}

impl Address {
    /// As the table names it.
    pub(super) fn place(&self) -> held_store::Place {
        (self.topic.clone(), self.offset, self.effect.clone())
    }

    fn effect(&self) -> &str {
        self.effect.as_deref().unwrap_or_default()
    }
}

/// The columns of addresses, as statements take them.
struct Columns {
    partitions: Vec<i32>,
    topics: Vec<String>,
    offsets: Vec<i64>,
    effects: Vec<String>,
}

impl Columns {
    fn of(addresses: &[Address]) -> Self {
        Self {
            partitions: addresses.iter().map(|address| address.partition).collect(),
            topics: addresses.iter().map(|address| address.topic.clone()).collect(),
            offsets: addresses.iter().map(|address| address.offset).collect(),
            effects: addresses.iter().map(|address| address.effect().to_owned()).collect(),
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
        "SELECT partition, topic, source_offset, effect, key, event_type, schema_id, class, code, message, dead, attempts,
                first_at, last_at
         FROM held AS h
         WHERE ($1::bool IS NULL OR dead = $1) AND ($2::bigint IS NULL OR key = $2)
           AND ($3::text IS NULL OR (topic = $3 AND partition = $4 AND source_offset = $5 AND effect = $8))
           AND ($7::timestamptz IS NULL OR last_at < $7)
           AND ($6 OR NOT EXISTS (SELECT FROM acts AS a WHERE a.partition = h.partition AND a.topic = h.topic
                                  AND a.source_offset = h.source_offset AND a.effect = h.effect))
         ORDER BY first_at, partition, number, topic, source_offset, effect",
    )
    .bind(dead)
    .bind(key)
    .bind(one.map(|address| &address.topic))
    .bind(one.map(|address| address.partition))
    .bind(one.map(|address| address.offset))
    .bind(asked)
    .bind(failed_before.map(clock::to_utc))
    .bind(one.map(Address::effect))
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
                     WHERE NOT w.dead AND w.key = ANY (array_agg(d.key)) AND d.class NOT IN ('strange', 'poison', 'effect'))
                        AS waiting,
                    min(first_at) AS first_at, max(last_at) AS last_at,
                    (array_agg(message ORDER BY last_at DESC))[1] AS message,
                    (array_agg(topic ORDER BY first_at, partition, source_offset, effect))[1] AS topic,
                    (array_agg(partition ORDER BY first_at, partition, source_offset, effect))[1] AS partition,
                    (array_agg(source_offset ORDER BY first_at, partition, source_offset, effect))[1] AS source_offset,
                    (array_agg(effect ORDER BY first_at, partition, source_offset, effect))[1] AS effect
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
        let Some(row) = held_store::read_one(&mut conn, address.partition, &address.place()).await? else {
            return Ok(None);
        };
        let behind: Vec<(String, i32, i64, String)> = sqlx::query_as(
            "SELECT topic, partition, source_offset, effect FROM held
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
            behind: behind.into_iter().map(self::address).collect(),
            kept: found.kept(),
        }))
    }

    pub(super) async fn write_acts(&self, deed: Deed, chosen: Selection<'_>, by: By<'_>) -> anyhow::Result<Asked> {
        let mut conn = self.pool.acquire().await?;
        let at = store::now(&mut conn).await?;
        let found = find(&mut conn, chosen, chosen.state(), false).await?;
        let found = found.into_iter().map(Found::kept).filter(|kept| deed != Deed::Discard || self.may_discard(kept));
        let kept: Vec<Address> = found.map(|kept| kept.address).collect();
        let Columns { partitions, topics, offsets, effects } = Columns::of(&kept);
        sqlx::query(
            "INSERT INTO acts (partition, topic, source_offset, effect, act, sub, reason)
             SELECT unnest($1::int[]), unnest($2::text[]), unnest($3::bigint[]), unnest($4::text[]), $5, $6, $7
             ON CONFLICT (partition, topic, source_offset, effect) DO NOTHING",
        )
        .bind(partitions)
        .bind(topics)
        .bind(offsets)
        .bind(effects)
        .bind(deed.as_str())
        .bind(by.sub)
        .bind(by.reason)
        .execute(&mut *conn)
        .await?;
        Ok(Asked { at, records: kept })
    }

    pub(super) async fn look_at(&self, records: &[Address]) -> anyhow::Result<Standing> {
        let mut conn = self.pool.acquire().await?;
        let Columns { partitions, topics, offsets, effects } = Columns::of(records);
        let rows: Vec<(bool, bool)> = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM acts AS a WHERE (a.partition, a.topic, a.source_offset, a.effect)
                                = (u.partition, u.topic, u.source_offset, u.effect)),
                    EXISTS (SELECT FROM held AS h WHERE (h.partition, h.topic, h.source_offset, h.effect)
                                = (u.partition, u.topic, u.source_offset, u.effect))
             FROM (SELECT unnest($1::int[]) AS partition, unnest($2::text[]) AS topic,
                          unnest($3::bigint[]) AS source_offset, unnest($4::text[]) AS effect) AS u",
        )
        .bind(partitions)
        .bind(topics)
        .bind(offsets)
        .bind(effects)
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
