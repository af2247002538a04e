//! The gateway's API: charges and refunds by key. It parses and answers; what a charge does is the acquirer's.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::acquirer::Acquirer;
use crate::books::{ChargeView, Error};
use crate::listing::Window;
use crate::plan::GatewayMode;
use crate::problem::{Body, Problem, no_method, parse_json};
use crate::rules::{ChargeOrder, RefundOrder, Refusal};
use crate::script::{Script, Telling, delay_ms};
use crate::switchboard::Switchboard;

/// Largest amount in minor units; leaves room for a wrong one.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;
const KEY_CHARS_MAX: usize = 255;
/// How long a call waits for the first try of its callback where the script asks for it.
const FIRST_TRY_WAIT_MAX: Duration = Duration::from_secs(6);

/// Where customers reach the checkout page.
#[derive(Debug, Clone)]
pub(crate) struct PublicUrl(pub(crate) String);

type Desk = web::Data<Arc<Acquirer>>;
type Board = web::Data<Switchboard>;

/// The `/v1` routes.
pub(crate) fn api(routes: &mut web::ServiceConfig) {
    routes
        .service(web::resource("/v1/charges").post(post_charge).get(list_charges).default_service(web::to(no_method)))
        .service(web::resource("/v1/charges/{key}").get(get_charge).default_service(web::to(no_method)))
        .service(web::resource("/v1/charges/{key}/cancel").post(cancel_charge).default_service(web::to(no_method)))
        .service(web::resource("/v1/refunds").post(post_refund).get(list_refunds).default_service(web::to(no_method)))
        .service(web::resource("/v1/refunds/{key}").get(get_refund).default_service(web::to(no_method)));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChargeRequest {
    key: String,
    amount: i64,
    currency: String,
    payment_method: String,
    callback_url: Option<String>,
}

impl ChargeRequest {
    fn check(self) -> Result<ChargeOrder, Problem> {
        let Self { key, amount, currency, payment_method, callback_url } = self;
        check_key("key", &key)?;
        check_amount(amount)?;
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(Problem::invalid("currency", "must be three capital letters (ISO 4217)"));
        }
        if payment_method.is_empty() || payment_method.len() > KEY_CHARS_MAX {
            return Err(Problem::invalid("payment_method", "must be a token of 1 to 255 characters"));
        }
        if let Some(url) = &callback_url {
            let web = reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
            if !web {
                return Err(Problem::invalid("callback_url", "must be an http or https URL"));
            }
        }
        Ok(ChargeOrder { key, amount, currency, payment_method, callback_url })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundRequest {
    key: String,
    charge_key: String,
    amount: i64,
}

impl RefundRequest {
    fn check(self) -> Result<RefundOrder, Problem> {
        let Self { key, charge_key, amount } = self;
        check_key("key", &key)?;
        check_key("charge_key", &charge_key)?;
        check_amount(amount)?;
        Ok(RefundOrder { key, charge_key, amount })
    }
}

/// Keys stand in paths and on the checkout page, so they hold no character that means something there.
fn check_key(field: &str, key: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.~".contains(&byte);
    if key.is_empty() || key.len() > KEY_CHARS_MAX || !key.bytes().all(plain) {
        return Err(Problem::invalid(field, "must be 1 to 255 of A-Z a-z 0-9 : - _ . ~"));
    }
    Ok(())
}

fn check_amount(amount: i64) -> Result<(), Problem> {
    if !(1..=AMOUNT_MAX).contains(&amount) {
        return Err(Problem::invalid("amount", &format!("must be a number of minor units from 1 to {AMOUNT_MAX}")));
    }
    Ok(())
}

async fn post_charge(
    request: HttpRequest,
    body: Body,
    desk: Desk,
    board: Board,
    public_url: web::Data<PublicUrl>,
) -> Result<HttpResponse, Problem> {
    let parsed = parse_json(request.headers(), body).and_then(ChargeRequest::check);
    let keys: Vec<&str> = parsed.iter().map(|order| order.key.as_str()).collect();
    let turn = board.enter(&request, &keys)?;
    let order = parsed?;
    let mut script = Script::of_token(&order.payment_method);
    // A repeat of an old call uses no plan up.
    if !desk.knows_charge(&order.key)
        && let Some(twist) = board.twist(&[&order.key])
    {
        script = script.under(twist);
    }
    let accepted = desk.charge(order, script)?;
    wait_for_first_try(accepted.first_try).await;
    board.leave(&request, turn).await;
    Ok(charge_answer(StatusCode::ACCEPTED, &accepted.view, &public_url))
}

async fn get_charge(
    request: HttpRequest,
    key: web::Path<String>,
    desk: Desk,
    board: Board,
    public_url: web::Data<PublicUrl>,
) -> Result<HttpResponse, Problem> {
    let turn = board.enter(&request, &[&key])?;
    let view = desk.get_charge(&key)?;
    board.leave(&request, turn).await;
    Ok(charge_answer(StatusCode::OK, &view, &public_url))
}

async fn cancel_charge(
    request: HttpRequest,
    key: web::Path<String>,
    desk: Desk,
    board: Board,
    public_url: web::Data<PublicUrl>,
) -> Result<HttpResponse, Problem> {
    let turn = board.enter(&request, &[&key])?;
    check_key("key", &key)?;
    let view = desk.cancel(&key)?;
    board.leave(&request, turn).await;
    Ok(charge_answer(StatusCode::OK, &view, &public_url))
}

async fn post_refund(request: HttpRequest, body: Body, desk: Desk, board: Board) -> Result<HttpResponse, Problem> {
    let parsed = parse_json(request.headers(), body).and_then(RefundRequest::check);
    let keys: Vec<&str> = parsed.iter().flat_map(|order| [order.key.as_str(), order.charge_key.as_str()]).collect();
    let turn = board.enter(&request, &keys)?;
    let order = parsed?;
    let twist = (!desk.knows_refund(&order.key)).then(|| board.twist(&[&order.key, &order.charge_key])).flatten();
    let slow = twist.filter(|twist| twist.mode == GatewayMode::Slow).map_or(0, delay_ms);
    let telling = twist.map_or_else(Telling::default, |twist| Telling::default().under(twist));
    let accepted = desk.refund(order, slow, telling)?;
    wait_for_first_try(accepted.first_try).await;
    board.leave(&request, turn).await;
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, format!("/v1/refunds/{}", accepted.view.key)))
        .json(&accepted.view))
}

async fn get_refund(
    request: HttpRequest,
    key: web::Path<String>,
    desk: Desk,
    board: Board,
) -> Result<HttpResponse, Problem> {
    let turn = board.enter(&request, &[&key])?;
    let view = desk.get_refund(&key)?;
    board.leave(&request, turn).await;
    Ok(HttpResponse::Ok().json(&view))
}

#[derive(Deserialize)]
struct ListQuery {
    cursor: Option<String>,
    limit: Option<String>,
}

impl ListQuery {
    fn window(&self) -> Result<Window, Problem> {
        Window::parse(self.cursor.as_deref(), self.limit.as_deref())
    }
}

async fn list_charges(
    request: HttpRequest,
    query: web::Query<ListQuery>,
    desk: Desk,
    board: Board,
) -> Result<HttpResponse, Problem> {
    let turn = board.enter(&request, &[])?;
    let page = desk.charges(query.window()?);
    board.leave(&request, turn).await;
    Ok(HttpResponse::Ok().json(page))
}

async fn list_refunds(
    request: HttpRequest,
    query: web::Query<ListQuery>,
    desk: Desk,
    board: Board,
) -> Result<HttpResponse, Problem> {
    let turn = board.enter(&request, &[])?;
    let page = desk.refunds(query.window()?);
    board.leave(&request, turn).await;
    Ok(HttpResponse::Ok().json(page))
}

/// A charge; while it can be paid on the page, a `Link` of relation `payment` leads there.
fn charge_answer(status: StatusCode, view: &ChargeView, public_url: &PublicUrl) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    if status == StatusCode::ACCEPTED {
        answer.insert_header((header::LOCATION, format!("/v1/charges/{}", view.key)));
    }
    if view.payable {
        answer.insert_header((header::LINK, format!("<{}/checkout/{}>; rel=\"payment\"", public_url.0, view.key)));
    }
    answer.json(view)
}

async fn wait_for_first_try(first_try: Option<oneshot::Receiver<()>>) {
    if let Some(first_try) = first_try {
        // Whatever came of it, the charge stands and is answered now.
        drop(tokio::time::timeout(FIRST_TRY_WAIT_MAX, first_try).await);
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, code) = match &error {
            Error::Refused(refusal) => match refusal {
                Refusal::KeyReused => (StatusCode::CONFLICT, "key_reused"),
                Refusal::Cancelled => (StatusCode::CONFLICT, "charge_cancelled"),
                Refusal::NotPayable => (StatusCode::CONFLICT, "not_payable"),
                Refusal::UnknownCharge => (StatusCode::NOT_FOUND, "unknown_charge"),
                Refusal::UnknownRefund => (StatusCode::NOT_FOUND, "unknown_refund"),
                Refusal::NotCaptured => (StatusCode::UNPROCESSABLE_ENTITY, "not_captured"),
                Refusal::ExceedsCaptured => (StatusCode::UNPROCESSABLE_ENTITY, "exceeds_captured"),
            },
            Error::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Error::Storage(error) => return Self::storage(error),
        };
        Self::new(status, code, error.to_string())
    }
}
