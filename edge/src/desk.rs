//! The admin routes of the dead-letter desk: what is held and dead, and what is to be done about it.
//!
//! Operators only. What the owning processor makes of a redrive or a discard is the engine's; here it is asked for, with who
//! wants it and why, and 202 says that it will be tried. They take no `Idempotency-Key`: asked twice, it is done once.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use engine::desk::{Address, By, DeadLetters, Deed, Selection, Which};
use events::time::Timestamp;
use serde_json::json;

use crate::auth::Caller;
use crate::fields::{Body, Field, Object};
use crate::health::Admin;
use crate::json::Json;
use crate::lists::{self, Params, Query};
use crate::problem::Problem;

/// Groups of dead letters.
pub(crate) const GROUPS: &str = "/admin/dead-letters";
/// Dead letters one by one.
pub(crate) const RECORDS: &str = "/admin/dead-letters/records";
/// One of them, or of the held records.
pub(crate) const RECORD: &str = "/admin/dead-letters/records/{topic}/{partition}/{offset}";
/// Tries records again.
pub(crate) const REDRIVE: &str = "/admin/dead-letters/redrive";
/// Settles records without applying them.
pub(crate) const DISCARD: &str = "/admin/dead-letters/discard";
/// How far what was asked for got.
pub(crate) const STANDING: &str = "/admin/dead-letters/standing";
/// Records that are tried again, and those that wait.
pub(crate) const HELD: &str = "/admin/held";

/// Records of one list or one request.
const RECORDS_MAX: i64 = 10_000;
const LIST_DEFAULT: i64 = 100;
const EFFECT_CHARS_MAX: usize = 64;
const REASON_CHARS_MAX: usize = 200;
const AGAIN_SECONDS: u64 = 2;

fn desk(admin: &Admin) -> Result<std::sync::Arc<dyn DeadLetters>, Problem> {
    let desk = admin.processors.dead_letters();
    desk.ok_or_else(|| Problem::unavailable("This process is starting or stopping: its desk is closed.", AGAIN_SECONDS))
}

fn away(error: &anyhow::Error) -> Problem {
    tracing::warn!(%error, "the desk does not reach its database");
    Problem::unavailable("The database does not answer.", AGAIN_SECONDS)
}

/// 200 with what dead letters fail of, the largest group first.
pub(crate) async fn groups(admin: web::Data<Admin>) -> Result<HttpResponse, Problem> {
    let groups = desk(&admin)?.groups().await.map_err(|error| away(&error))?;
    Ok(HttpResponse::Ok().json(json!({"groups": groups})))
}

/// Which records a list shows.
#[derive(Debug)]
pub(crate) struct Listed {
    group: Option<String>,
    key: Option<i64>,
    limit: i64,
}

impl Query for Listed {
    fn read(params: &Params) -> Option<Self> {
        let group = params.optional("group", group);
        let key =
            params.optional("key", |text| text.parse::<i64>().map_err(|_| "must be a key, such as an order's ID"));
        let limit = params.optional("limit", |text| {
            let limit = text.parse().ok().filter(|limit| (1..=RECORDS_MAX).contains(limit));
            limit.ok_or_else(|| format!("must be an integer from 1 to {RECORDS_MAX}"))
        });
        Some(Self { group: group?, key: key?, limit: limit?.unwrap_or(LIST_DEFAULT) })
    }
}

fn group(text: &str) -> Result<String, &'static str> {
    let good = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if good { Ok(text.to_ascii_lowercase()) } else { Err("must be a group as GET /admin/dead-letters names it") }
}

/// 200 with dead letters, the oldest first.
pub(crate) async fn records(admin: web::Data<Admin>, listed: lists::Asked<Listed>) -> Result<HttpResponse, Problem> {
    list(&admin, &listed.0, true).await
}

/// 200 with held records and those that wait behind one, the oldest first.
pub(crate) async fn held(admin: web::Data<Admin>, listed: lists::Asked<Listed>) -> Result<HttpResponse, Problem> {
    list(&admin, &listed.0, false).await
}

async fn list(admin: &Admin, listed: &Listed, dead: bool) -> Result<HttpResponse, Problem> {
    let which = match (&listed.group, listed.key) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("ONE_OF", "Give a group or a key, not both.")
                .with_field("/key", "must not be there beside group"));
        }
        (Some(group), None) => Which::Group(group),
        (None, Some(key)) => Which::Key(key),
        (None, None) => Which::All,
    };
    let chosen = Selection { which, failed_before: None, limit: listed.limit };
    let records = desk(admin)?.list(chosen, dead).await.map_err(|error| away(&error))?;
    Ok(HttpResponse::Ok().json(json!({"records": records})))
}

/// Which effect that the record asked for, if not the record itself.
#[derive(Debug)]
pub(crate) struct Named {
    effect: Option<String>,
}

impl Query for Named {
    fn read(params: &Params) -> Option<Self> {
        Some(Self { effect: params.optional("effect", effect)? })
    }
}

fn effect(text: &str) -> Result<String, &'static str> {
    let good = (1..=EFFECT_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err("must be the name of an effect, such as charge") }
}

/// 200 with everything about one record or effect, 404 when it is not kept (any more).
pub(crate) async fn show(
    admin: web::Data<Admin>,
    place: web::Path<(String, String, String)>,
    named: lists::Asked<Named>,
) -> Result<HttpResponse, Problem> {
    let (topic, partition, offset) = place.into_inner();
    let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse()) else {
        return Err(Problem::not_found());
    };
    let address = Address { topic, partition, offset, effect: named.0.effect };
    let shown = desk(&admin)?.show(&address).await.map_err(|error| away(&error))?;
    match shown {
        Some(shown) => Ok(HttpResponse::Ok().json(shown)),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "No such record is held or dead.")),
    }
}

/// Which records are meant.
#[derive(Debug)]
enum Chosen {
    All,
    Group(String),
    Key(i64),
    One(Address),
}

impl Chosen {
    fn which(&self) -> Which<'_> {
        match self {
            Self::All => Which::All,
            Self::Group(group) => Which::Group(group),
            Self::Key(key) => Which::Key(*key),
            Self::One(address) => Which::One(address),
        }
    }

    /// Exactly one of four fields.
    fn read(body: &Object<'_>) -> Option<Self> {
        let all = body.field("all").optional(Field::boolean);
        let group = body.field("group").optional(|field| field.parsed_by(group));
        let key = body.field("key").optional(Field::parsed::<i64>);
        let one = body.field("record").optional(|field| field.object(address));
        let (all, group, key, one) = (all?.filter(|all| *all), group?, key?, one?);
        let chosen = all.map(|_| Self::All).into_iter().chain(group.map(Self::Group));
        let mut chosen = chosen.chain(key.map(Self::Key)).chain(one.map(Self::One));
        match (chosen.next(), chosen.next()) {
            (Some(chosen), None) => Some(chosen),
            _ => {
                body.error("", "must have exactly one of all (true), group, key, record");
                None
            }
        }
    }
}

fn address(body: &Object<'_>) -> Option<Address> {
    let topic = body.field("topic").text(1, 249);
    let partition = body.field("partition").integer(0, i64::from(i32::MAX));
    let offset = body.field("offset").integer(0, i64::MAX);
    let effect = body.field("effect").optional(|field| field.parsed_by(effect));
    Some(Address { topic: topic?, partition: i32::try_from(partition?).ok()?, offset: offset?, effect: effect? })
}

/// What is to be done, about which records, and why.
#[derive(Debug)]
pub(crate) struct Wanted {
    chosen: Chosen,
    reason: String,
    failed_before: Option<Timestamp>,
    limit: i64,
    dry_run: bool,
}

impl Wanted {
    fn selection(&self) -> Selection<'_> {
        Selection { which: self.chosen.which(), failed_before: self.failed_before, limit: self.limit }
    }
}

impl Body for Wanted {
    fn read(body: &Object<'_>) -> Option<Self> {
        let reason = body.field("reason").text(1, REASON_CHARS_MAX);
        let limit = body.field("limit").optional(|field| field.integer(1, RECORDS_MAX));
        let failed_before = body.field("failed_before").optional(|field| field.parsed_by(Timestamp::parse));
        let dry_run = body.field("dry_run").optional(Field::boolean);
        let chosen = Chosen::read(body);
        let reason = reason.filter(|reason| {
            let plain = !reason.chars().any(char::is_control);
            if !plain {
                body.error("/reason", "must not contain control characters");
            }
            plain
        });
        Some(Self {
            chosen: chosen?,
            reason: reason?,
            failed_before: failed_before?,
            limit: limit?.unwrap_or(RECORDS_MAX),
            dry_run: dry_run?.unwrap_or(false),
        })
    }
}

/// 202 with the records that will be tried again; 200 with what would come of it, when it is a dry run.
pub(crate) async fn redrive(
    caller: Caller,
    admin: web::Data<Admin>,
    wanted: Json<Wanted>,
) -> Result<HttpResponse, Problem> {
    let wanted = wanted.value;
    if wanted.dry_run {
        let desk = desk(&admin)?;
        let outcomes = desk.forecast(wanted.selection()).await.map_err(|error| away(&error))?;
        return Ok(HttpResponse::Ok().json(json!({"outcomes": outcomes})));
    }
    ask(&caller, &admin, Deed::Redrive, &wanted).await
}

/// 202 with the records that will be settled without being applied.
pub(crate) async fn discard(
    caller: Caller,
    admin: web::Data<Admin>,
    wanted: Json<Wanted>,
) -> Result<HttpResponse, Problem> {
    let wanted = wanted.value;
    if wanted.dry_run {
        return Err(Problem::unprocessable("NO_DRY_RUN", "A discard applies nothing: there is nothing to try out.")
            .with_field("/dry_run", "must not be there"));
    }
    if let Chosen::One(address) = &wanted.chosen {
        let desk = desk(&admin)?;
        let shown = desk.show(address).await.map_err(|error| away(&error))?;
        if let Some(kept) = shown.map(|shown| shown.kept).filter(|kept| !desk.may_discard(kept)) {
            let detail = match (&kept.address.effect, &kept.event_type) {
                (Some(effect), _) => format!("The effect {effect} can only be redriven: its answer cannot be made up."),
                (None, name) => {
                    let name = name.as_deref().unwrap_or_default();
                    format!("A record of type {name} can only be redriven: what it says cannot be unsaid.")
                }
            };
            return Err(Problem::conflict("NOT_DISCARDABLE", detail));
        }
    }
    ask(&caller, &admin, Deed::Discard, &wanted).await
}

async fn ask(caller: &Caller, admin: &Admin, deed: Deed, wanted: &Wanted) -> Result<HttpResponse, Problem> {
    let by = By { sub: &caller.subject, reason: &wanted.reason };
    let desk = desk(admin)?;
    let asked = desk.ask(deed, wanted.selection(), by).await.map_err(|error| away(&error))?;
    if let (Chosen::One(address), []) = (&wanted.chosen, &asked.records[..])
        && desk.show(address).await.map_err(|error| away(&error))?.is_none()
    {
        return Err(Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "No such record is held or dead."));
    }
    tracing::info!(
        act = deed.as_str(),
        records = asked.records.len(),
        sub = caller.subject,
        reason = wanted.reason,
        "an operator acts on dead letters"
    );
    Ok(HttpResponse::Accepted().json(asked))
}

/// Records of which something was asked for.
#[derive(Debug)]
pub(crate) struct Addresses(Vec<Address>);

impl Body for Addresses {
    fn read(body: &Object<'_>) -> Option<Self> {
        let most = usize::try_from(RECORDS_MAX).ok()?;
        body.field("records").list(0, most, |field| field.object(address)).map(Self)
    }
}

/// 200 with how many of these records are still to be done, through, and kept.
pub(crate) async fn standing(admin: web::Data<Admin>, of: Json<Addresses>) -> Result<HttpResponse, Problem> {
    let Addresses(records) = of.value;
    let standing = desk(&admin)?.standing(&records).await.map_err(|error| away(&error))?;
    Ok(HttpResponse::Ok().json(standing))
}
