//! The table `idempotency`: which command a caller's key stands for, and what was answered.
//!
//! SQL only, in batches sorted by key; what the outcomes mean for a client is [`crate::commands`]. Every function takes
//! one statement per step and no transaction: each statement is whole by itself, so nothing can be left half-done.

use std::collections::HashMap;

use sqlx::PgPool;

/// After so many seconds without an answer the next request with the key takes over (H17).
const TAKE_OVER_SECONDS: f64 = 10.0;

/// (caller, key hash): a key is never looked up alone.
pub(crate) type Key = (String, String);

/// A command that wants to be the one of its key.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) key: Key,
    pub(crate) fingerprint: String,
    pub(crate) subject: i64,
    pub(crate) command_id: i64,
    /// JSON list of name and value.
    pub(crate) headers: String,
    pub(crate) value: Vec<u8>,
}

/// The command that a key stands for, once the 202 is certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) fingerprint: String,
    pub(crate) subject: i64,
    pub(crate) command_id: i64,
    /// Location and body as they were answered; none when only the log remembers the command.
    pub(crate) answer: Option<(String, Vec<u8>)>,
}

/// What became of a claim.
#[derive(Debug, Clone)]
pub(crate) enum Claimed {
    /// The key is the claim's: append it.
    New,
    /// The key was somebody's who did not answer in time: append these same bytes.
    TakenOver(Claim),
    /// Somebody is at it; they have so many seconds left.
    Running { fingerprint: String, seconds_left: i64 },
    /// It was answered, or decided.
    Known(Known),
}

/// Claims keys for commands. Two claims of one key in a batch are as if the second came later.
pub(crate) async fn claim(pool: &PgPool, claims: Vec<Claim>) -> Result<Vec<Claimed>, sqlx::Error> {
    let (made, decided) = insert(pool, &claims).await?;
    let mut rest: Vec<&Claim> = Vec::new();
    for claim in &claims {
        if !made.contains(&claim.command_id) && !decided.contains_key(&claim.key) {
            rest.push(claim);
        }
    }
    let mut taken = HashMap::new();
    let mut rows = HashMap::new();
    if !rest.is_empty() {
        taken = take_over(pool, rest.iter().map(|claim| (&claim.key, claim.fingerprint.as_str()))).await?;
        rows = read(pool, &rest.iter().map(|claim| &claim.key).collect::<Vec<_>>()).await?;
    }
    let mut outcome = |claim: &Claim| {
        if made.contains(&claim.command_id) {
            return Claimed::New;
        }
        if let Some(known) = decided.get(&claim.key) {
            return Claimed::Known(known.clone());
        }
        // One of several twins in a batch gets it; the others find it running.
        if let Some(stored) = taken.remove(&claim.key) {
            return Claimed::TakenOver(stored);
        }
        // A row that has gone since the insert met it is another's business for a second.
        let gone = || Claimed::Running { fingerprint: claim.fingerprint.clone(), seconds_left: 1 };
        rows.get(&claim.key).cloned().unwrap_or_else(gone)
    };
    Ok(claims.iter().map(&mut outcome).collect())
}

/// What is known of one key, without claiming it. `None`: nothing. What nobody answered in time is taken over.
pub(crate) async fn find(pool: &PgPool, key: &Key, fingerprint: &str) -> Result<Option<Claimed>, sqlx::Error> {
    let decided: Option<(String, i64, i64)> =
        sqlx::query_as("SELECT fingerprint, subject, command_id FROM commands WHERE caller = $1 AND key_hash = $2")
            .bind(&key.0)
            .bind(&key.1)
            .fetch_optional(pool)
            .await?;
    if let Some((fingerprint, subject, command_id)) = decided {
        return Ok(Some(Claimed::Known(Known { fingerprint, subject, command_id, answer: None })));
    }
    let known = read(pool, &[key]).await?.remove(key);
    if matches!(known, Some(Claimed::Running { .. }))
        && let Some(stored) = take_over(pool, [(key, fingerprint)].into_iter()).await?.remove(key)
    {
        return Ok(Some(Claimed::TakenOver(stored)));
    }
    Ok(known)
}

/// Inserts the claims whose key is in neither table. Returns the command IDs that were inserted, and what
/// `projection.commands` knows already: that table is looked up before a new command is made, for its memory outlives
/// the rows of this one.
async fn insert(pool: &PgPool, claims: &[Claim]) -> Result<(Vec<i64>, HashMap<Key, Known>), sqlx::Error> {
    let mut sorted: Vec<&Claim> = claims.iter().collect();
    sorted.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    type Row = (bool, Option<String>, Option<String>, Option<String>, Option<i64>, i64);
    let rows: Vec<Row> = sqlx::query_as(
        r#"WITH asked AS (
             SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[])
                 AS a (caller, key_hash, fingerprint, subject, command_id, headers, value)
         ), decided AS (
             SELECT c.caller, c.key_hash, c.fingerprint, c.subject, c.command_id
             FROM asked AS a JOIN commands AS c ON c.caller = a.caller AND c.key_hash = a.key_hash
         ), made AS (
             INSERT INTO idempotency (caller, key_hash, fingerprint, subject, command_id, headers, value)
             SELECT a.caller, a.key_hash, a.fingerprint, a.subject, a.command_id, a.headers, a.value FROM asked AS a
             WHERE NOT EXISTS (SELECT FROM decided AS d WHERE d.caller = a.caller AND d.key_hash = a.key_hash)
             ORDER BY a.caller COLLATE "C", a.key_hash COLLATE "C"
             ON CONFLICT DO NOTHING
             RETURNING command_id
         )
         SELECT true, NULL, NULL, NULL, NULL, command_id FROM made
         UNION ALL
         SELECT false, caller, key_hash, fingerprint, subject, command_id FROM decided"#,
    )
    .bind(sorted.iter().map(|claim| claim.key.0.as_str()).collect::<Vec<_>>())
    .bind(sorted.iter().map(|claim| claim.key.1.as_str()).collect::<Vec<_>>())
    .bind(sorted.iter().map(|claim| claim.fingerprint.as_str()).collect::<Vec<_>>())
    .bind(sorted.iter().map(|claim| claim.subject).collect::<Vec<_>>())
    .bind(sorted.iter().map(|claim| claim.command_id).collect::<Vec<_>>())
    .bind(sorted.iter().map(|claim| claim.headers.as_str()).collect::<Vec<_>>())
    .bind(sorted.iter().map(|claim| claim.value.as_slice()).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    let mut made = Vec::new();
    let mut decided = HashMap::new();
    for row in rows {
        match row {
            (true, .., command_id) => made.push(command_id),
            (false, Some(caller), Some(key_hash), fingerprint, Some(subject), command_id) => {
                let fingerprint = fingerprint.unwrap_or_default();
                decided.insert((caller, key_hash), Known { fingerprint, subject, command_id, answer: None });
            }
            (false, ..) => return Err(sqlx::Error::Decode("a command without its key".into())),
        }
    }
    Ok((made, decided))
}

/// Takes over what nobody answered in time, by Postgres' clock. A row that another process is taking is passed over.
async fn take_over<'a>(
    pool: &PgPool,
    wanted: impl Iterator<Item = (&'a Key, &'a str)> + Clone,
) -> Result<HashMap<Key, Claim>, sqlx::Error> {
    type Row = (String, String, String, i64, i64, String, Vec<u8>);
    let rows: Vec<Row> = sqlx::query_as(
        "WITH stale AS (
             SELECT i.caller, i.key_hash
             FROM idempotency AS i
             JOIN UNNEST($1::text[], $2::text[], $3::text[]) AS a (caller, key_hash, fingerprint)
                 ON i.caller = a.caller AND i.key_hash = a.key_hash AND i.fingerprint = a.fingerprint
             WHERE i.answer IS NULL AND i.started_at <= now() - make_interval(secs => $4)
             ORDER BY i.caller, i.key_hash
             FOR UPDATE OF i SKIP LOCKED
         )
         UPDATE idempotency AS i SET started_at = now() FROM stale AS s
         WHERE i.caller = s.caller AND i.key_hash = s.key_hash
         RETURNING i.caller, i.key_hash, i.fingerprint, i.subject, i.command_id, i.headers, i.value",
    )
    .bind(wanted.clone().map(|(key, _)| key.0.as_str()).collect::<Vec<_>>())
    .bind(wanted.clone().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>())
    .bind(wanted.map(|(_, fingerprint)| fingerprint).collect::<Vec<_>>())
    .bind(TAKE_OVER_SECONDS)
    .fetch_all(pool)
    .await?;
    let claim = |(caller, key_hash, fingerprint, subject, command_id, headers, value): Row| {
        let key = (caller, key_hash);
        (key.clone(), Claim { key, fingerprint, subject, command_id, headers, value })
    };
    Ok(rows.into_iter().map(claim).collect())
}

async fn read(pool: &PgPool, keys: &[&Key]) -> Result<HashMap<Key, Claimed>, sqlx::Error> {
    type Row = (String, String, String, i64, i64, Option<String>, Option<Vec<u8>>, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT i.caller, i.key_hash, i.fingerprint, i.subject, i.command_id, i.location, i.answer,
                GREATEST(1, CEIL($3 - EXTRACT(EPOCH FROM now() - i.started_at)))::bigint
         FROM idempotency AS i
         JOIN (SELECT DISTINCT * FROM UNNEST($1::text[], $2::text[]) AS a (caller, key_hash)) AS a
             ON i.caller = a.caller AND i.key_hash = a.key_hash",
    )
    .bind(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
    .bind(TAKE_OVER_SECONDS)
    .fetch_all(pool)
    .await?;
    let claimed = |(caller, key_hash, fingerprint, subject, command_id, location, answer, seconds_left): Row| {
        let claimed = match location.zip(answer) {
            Some(answer) => Claimed::Known(Known { fingerprint, subject, command_id, answer: Some(answer) }),
            None => Claimed::Running { fingerprint, seconds_left },
        };
        ((caller, key_hash), claimed)
    };
    Ok(rows.into_iter().map(claimed).collect())
}

/// Who first asked for something about this aggregate, and when (milliseconds since 1970).
pub(crate) async fn first_of(pool: &PgPool, subject: i64) -> Result<Option<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT caller, FLOOR(EXTRACT(EPOCH FROM started_at) * 1000)::bigint FROM idempotency
         WHERE subject = $1 ORDER BY started_at, command_id LIMIT 1",
    )
    .bind(subject)
    .fetch_optional(pool)
    .await
}

/// What is answered for a key, to be given again for ever.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) key: Key,
    pub(crate) location: String,
    pub(crate) body: Vec<u8>,
}

/// Stores answers; a row that has one keeps it.
pub(crate) async fn answer(pool: &PgPool, mut answers: Vec<Answered>) -> Result<Vec<()>, sqlx::Error> {
    answers.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    sqlx::query(
        "WITH answered AS (
             SELECT i.caller, i.key_hash, a.location, a.answer
             FROM idempotency AS i
             JOIN UNNEST($1::text[], $2::text[], $3::text[], $4::bytea[]) AS a (caller, key_hash, location, answer)
                 ON i.caller = a.caller AND i.key_hash = a.key_hash
             WHERE i.answer IS NULL
             ORDER BY i.caller, i.key_hash
             FOR UPDATE OF i
         )
         UPDATE idempotency AS i SET location = a.location, answer = a.answer, headers = NULL, value = NULL
         FROM answered AS a WHERE i.caller = a.caller AND i.key_hash = a.key_hash",
    )
    .bind(answers.iter().map(|answer| answer.key.0.as_str()).collect::<Vec<_>>())
    .bind(answers.iter().map(|answer| answer.key.1.as_str()).collect::<Vec<_>>())
    .bind(answers.iter().map(|answer| answer.location.as_str()).collect::<Vec<_>>())
    .bind(answers.iter().map(|answer| answer.body.as_slice()).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(vec![(); answers.len()])
}
