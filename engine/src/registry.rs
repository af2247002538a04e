//! The schema registry (Confluent's API): IDs for the schemas of this build, and whether an unknown ID exists.
//!
//! Services never register. IDs are remembered in the service's database, so a registry outage stops nobody; one that
//! disagrees with what is remembered is an error. "Not found" is never remembered (PITFALLS P3.6).

mod answer;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use events::codec::Codec;
use events::schema::{SCHEMAS, SchemaDef};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use tracing::warn;

use answer::{found, success};

use crate::mutant;

const TIMEOUT: Duration = Duration::from_secs(5);
const LEVEL: &str = "FULL_TRANSITIVE";
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Whether a schema ID exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The registry has it.
    Yes {
        /// A subject it is registered under, for people.
        subject: String,
    },
    /// The registry says there is none.
    No,
    /// No answer, with the reason.
    Unavailable(String),
}

/// What `push` or `check` found of one schema.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Subject.
    pub subject: String,
    /// Version of the file.
    pub version: u32,
    /// The registry's ID, once registered.
    pub id: Option<u32>,
    /// Stored versions it was compared with.
    pub compared: usize,
    /// What is wrong.
    pub problem: Option<String>,
}

/// A client of the registry.
#[derive(Debug, Clone)]
pub struct Registry {
    url: String,
    client: reqwest::Client,
}

#[derive(Debug, Deserialize)]
struct Registered {
    id: u32,
}

#[derive(Debug, Deserialize)]
struct Subject {
    subject: String,
}

/// The ID of a schema, and whether it was remembered for exactly these bytes.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    id: u32,
    same_text: bool,
}

#[derive(Debug, Deserialize)]
struct Compatibility {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

impl Registry {
    /// A client for the registry's base URL, such as `http://127.0.0.1:18081/apis/ccompat/v7`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: impl Into<String>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("making an HTTP client")?;
        let url: String = url.into();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), client })
    }

    /// The codec of this build: IDs from the registry, or from the database while the registry is away.
    ///
    /// # Errors
    /// When a schema is not registered, when the registry disagrees with what is remembered, or when it is away and
    /// nothing is remembered.
    pub async fn codec(&self, pool: &PgPool) -> anyhow::Result<Codec> {
        let mut conn = pool.acquire().await?;
        let remembered = remembered(&mut conn).await?;
        let mut ids = Vec::with_capacity(SCHEMAS.len());
        let mut fresh = Vec::new();
        for def in of_this_build() {
            let known = remembered.get(&(def.subject(), def.version)).copied();
            let id = match (self.lookup(def).await, known) {
                (Ok(Some(id)), Some(known)) if id != known.id => bail!(
                    "the registry gives {} version {} the ID {id}, but records were written with {}: this is not the \
                     registry of this log",
                    def.subject(),
                    def.version,
                    known.id
                ),
                (Ok(Some(id)), known) => {
                    if known.is_none_or(|known| !known.same_text) {
                        fresh.push((def, id));
                    }
                    id
                }
                (Ok(None), Some(known)) => bail!(
                    "the registry has lost {} version {}, which records were written with (ID {})",
                    def.subject(),
                    def.version,
                    known.id
                ),
                (Ok(None), None) => {
                    bail!("{} is not registered; run `cargo orderctl schemas push`", def.subject())
                }
                (Err(error), Some(_)) => {
                    warn!(error = format!("{error:#}"), "the registry is away; starting from remembered IDs");
                    return Ok(codec_of(from_memory(&remembered)?));
                }
                (Err(error), None) => {
                    return Err(error.context("no schema ID is remembered, and the registry does not answer"));
                }
            };
            ids.push((def, id));
        }
        remember(&mut conn, &fresh).await?;
        Ok(codec_of(ids))
    }

    /// The codec of this build from the registry alone, for tools that have no database.
    ///
    /// # Errors
    /// When a schema is not registered or the registry does not answer.
    pub async fn codec_without_memory(&self) -> anyhow::Result<Codec> {
        let mut ids = Vec::with_capacity(SCHEMAS.len());
        for def in SCHEMAS {
            let id = self.lookup(def).await?;
            let id =
                id.with_context(|| format!("{} is not registered; run `cargo orderctl schemas push`", def.subject()))?;
            ids.push((def, id));
        }
        Ok(codec_of(ids))
    }

    /// Asks whether a schema ID exists. Never answered from memory.
    pub async fn known(&self, id: u32) -> Known {
        let url = format!("{}/schemas/ids/{id}", self.url);
        let response = match self.client.get(&url).send().await {
            Ok(response) => response,
            Err(error) => return Known::Unavailable(error.to_string()),
        };
        match found(response).await {
            Ok(Some(_)) => Known::Yes { subject: self.subject_of(id).await },
            Ok(None) => Known::No,
            Err(error) => Known::Unavailable(format!("{error:#}")),
        }
    }

    async fn subject_of(&self, id: u32) -> String {
        let url = format!("{}/schemas/ids/{id}/versions", self.url);
        let subjects = async { self.client.get(&url).send().await?.json::<Vec<Subject>>().await };
        subjects.await.ok().and_then(|mut all| all.pop()).map_or_else(|| "no subject".to_owned(), |one| one.subject)
    }

    /// The ID of a schema, if it is registered under its subject.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn lookup(&self, def: &SchemaDef) -> anyhow::Result<Option<u32>> {
        let response = self.post(&format!("/subjects/{}", def.subject()), def).await?;
        let Some(response) = found(response).await? else { return Ok(None) };
        Ok(Some(response.json::<Registered>().await.context("reading the registry's answer")?.id))
    }

    /// Sets the global level and registers every schema of this build.
    ///
    /// # Errors
    /// As [`Registry::push_these`].
    pub async fn push(&self) -> anyhow::Result<Vec<Finding>> {
        self.push_these(SCHEMAS).await
    }

    /// Sets the global level and registers schemas, in their order.
    ///
    /// # Errors
    /// When the registry does not answer. An incompatible schema is a finding, not an error.
    pub async fn push_these(&self, schemas: &[SchemaDef]) -> anyhow::Result<Vec<Finding>> {
        let mut answer = self.set_level().await?;
        if answer.status() == StatusCode::CONFLICT {
            // Apicurio lets only one of two make the rule at the same moment; the other then finds it.
            answer = self.set_level().await?;
        }
        success(answer).await?;
        let mut findings = Vec::new();
        for def in schemas {
            let response = self.post(&format!("/subjects/{}/versions", def.subject()), def).await?;
            let conflict = response.status() == StatusCode::CONFLICT;
            let (id, problem) = if conflict {
                (None, Some(response.text().await.unwrap_or_default()))
            } else {
                (Some(success(response).await?.json::<Registered>().await?.id), None)
            };
            findings.push(Finding { subject: def.subject(), version: def.version, id, compared: 0, problem });
        }
        Ok(findings)
    }

    async fn set_level(&self) -> anyhow::Result<reqwest::Response> {
        let config = serde_json::json!({ "compatibility": LEVEL });
        let put = self.client.put(format!("{}/config", self.url)).header("content-type", CONTENT_TYPE);
        put.body(config.to_string()).send().await.context("setting the level")
    }

    /// Compares every schema of this build with every stored version of its subject, and the level with what it must be.
    ///
    /// # Errors
    /// As [`Registry::check_these`].
    pub async fn check(&self) -> anyhow::Result<Vec<Finding>> {
        self.check_these(SCHEMAS).await
    }

    /// Compares schemas with every stored version of their subjects, and the levels with what they must be.
    ///
    /// # Errors
    /// When the registry does not answer or its global level is another one.
    pub async fn check_these(&self, schemas: &[SchemaDef]) -> anyhow::Result<Vec<Finding>> {
        let level = self.level("/config").await?;
        if level != LEVEL {
            bail!("the registry's global level is {level}, not {LEVEL}; run `cargo orderctl schemas push`");
        }
        let mut findings = Vec::new();
        for def in schemas {
            findings.push(self.check_one(def).await?);
        }
        Ok(findings)
    }

    async fn check_one(&self, def: &SchemaDef) -> anyhow::Result<Finding> {
        let subject = def.subject();
        let stored: Option<Vec<u32>> = self.get(&format!("/subjects/{subject}/versions")).await?;
        let stored = stored.unwrap_or_default();
        let id = self.lookup(def).await?;
        let mut finding = Finding { subject, version: def.version, id, compared: stored.len(), problem: None };
        if stored.is_empty() {
            finding.problem = Some("not registered".to_owned());
            return Ok(finding);
        }
        let level = self.level(&format!("/config/{}?defaultToGlobal=true", finding.subject)).await?;
        if level != LEVEL {
            // The registry compares by the subject's own level, so its answers would prove nothing.
            finding.problem = Some(format!("the subject has a level of its own, {level}; it must have none"));
            return Ok(finding);
        }
        for version in &stored {
            let path = format!("/compatibility/subjects/{}/versions/{version}?verbose=true", finding.subject);
            let answer: Compatibility = success(self.post(&path, def).await?).await?.json().await?;
            if !answer.is_compatible {
                let mut problem = format!("incompatible with version {version}");
                for message in &answer.messages {
                    problem.push_str("; ");
                    problem.push_str(message);
                }
                finding.problem = Some(problem);
                return Ok(finding);
            }
        }
        if finding.id.is_none() {
            finding.problem = Some("this version is not registered".to_owned());
        }
        Ok(finding)
    }

    async fn level(&self, path: &str) -> anyhow::Result<String> {
        let level: serde_json::Value = self.get(path).await?.context("the registry has no level")?;
        let level = level["compatibilityLevel"].as_str().or(level["compatibility"].as_str());
        Ok(level.unwrap_or("none").to_owned())
    }

    async fn post(&self, path: &str, def: &SchemaDef) -> anyhow::Result<reqwest::Response> {
        let body = serde_json::json!({ "schema": def.text });
        let request = self.client.post(format!("{}{path}", self.url)).header("content-type", CONTENT_TYPE);
        request.body(body.to_string()).send().await.context("asking the schema registry")
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<Option<T>> {
        let request = self.client.get(format!("{}{path}", self.url));
        let response = request.send().await.context("asking the schema registry")?;
        let Some(response) = found(response).await? else { return Ok(None) };
        Ok(Some(response.json().await.context("reading the registry's answer")?))
    }
}

fn codec_of(mut ids: Vec<(&'static SchemaDef, u32)>) -> Codec {
    if mutant::is_mended() {
        let reversed: Vec<_> = ids.iter().map(|(def, id)| (*def, id.swap_bytes())).collect();
        // Behind those that are written.
        ids.extend(reversed);
    }
    Codec::new(&ids)
}

fn fingerprint(def: &SchemaDef) -> String {
    hex::encode(Sha256::digest(def.text.as_bytes()))
}

fn from_memory(remembered: &HashMap<(String, u32), Remembered>) -> anyhow::Result<Vec<(&'static SchemaDef, u32)>> {
    let id = |def: &'static SchemaDef| {
        let known = remembered.get(&(def.subject(), def.version)).copied();
        let known = known.with_context(|| {
            format!("the registry is away, and no ID of {} version {} is remembered", def.subject(), def.version)
        })?;
        // Whether the changed file still has this ID is the registry's to say.
        anyhow::ensure!(
            known.same_text,
            "the registry is away, and the file of {} version {} is not the one whose ID is remembered",
            def.subject(),
            def.version
        );
        Ok((def, known.id))
    };
    of_this_build().map(id).collect()
}

fn of_this_build() -> impl Iterator<Item = &'static SchemaDef> {
    SCHEMAS.iter().filter(|def| !mutant::lacks(def.full_name))
}

async fn remembered(conn: &mut PgConnection) -> anyhow::Result<HashMap<(String, u32), Remembered>> {
    let rows: Vec<(String, i32, String, i64)> =
        sqlx::query_as("SELECT subject, version, fingerprint, id FROM schema_ids").fetch_all(conn).await?;
    let mut ids = HashMap::new();
    for (subject, version, text, id) in rows {
        let version = u32::try_from(version)?;
        let def = SCHEMAS.iter().find(|def| def.version == version && def.subject() == subject);
        let same_text = def.is_some_and(|def| fingerprint(def) == text);
        ids.insert((subject, version), Remembered { id: u32::try_from(id)?, same_text });
    }
    Ok(ids)
}

async fn remember(conn: &mut PgConnection, fresh: &[(&SchemaDef, u32)]) -> anyhow::Result<()> {
    for (def, id) in fresh {
        sqlx::query(
            "INSERT INTO schema_ids (subject, version, fingerprint, id) VALUES ($1, $2, $3, $4)
             ON CONFLICT (subject, version) DO UPDATE SET fingerprint = EXCLUDED.fingerprint
             WHERE schema_ids.id = EXCLUDED.id",
        )
        .bind(def.subject())
        .bind(i32::try_from(def.version)?)
        .bind(fingerprint(def))
        .bind(i64::from(*id))
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
