//! The hosted page on which a customer pays or declines a `pm_checkout` charge: plain HTML, one form per button, no
//! script. It asks nobody who they are: whoever has the link may pay.

use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};

use crate::acquirer::Acquirer;
use crate::books::{ChargeView, Error};
use crate::problem::no_method;
use crate::rules::Refusal;
use crate::script::ChargeStatus;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";

type Desk = web::Data<Arc<Acquirer>>;

/// The `/checkout` routes.
pub(crate) fn pages(routes: &mut web::ServiceConfig) {
    routes
        .service(web::resource("/checkout/{key}").get(show).default_service(web::to(no_method)))
        .service(
            web::resource("/checkout/{key}/pay")
                .post(async |key: web::Path<String>, desk: Desk| press(&desk, &key, ChargeStatus::Captured))
                .default_service(web::to(no_method)),
        )
        .service(
            web::resource("/checkout/{key}/decline")
                .post(async |key: web::Path<String>, desk: Desk| press(&desk, &key, ChargeStatus::Declined))
                .default_service(web::to(no_method)),
        );
}

async fn show(key: web::Path<String>, desk: Desk) -> HttpResponse {
    match desk.get_charge(&key) {
        Ok(view) => page(StatusCode::OK, &charge_html(&view)),
        Err(error) => failed(&error),
    }
}

fn press(desk: &Arc<Acquirer>, key: &str, status: ChargeStatus) -> HttpResponse {
    match desk.pay(key, status) {
        // Back to the page, so that reloading it presses nothing again.
        Ok(view) => {
            HttpResponse::SeeOther().insert_header((header::LOCATION, format!("/checkout/{}", view.key))).finish()
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> HttpResponse {
    let status = match error {
        Error::Refused(Refusal::UnknownCharge) => StatusCode::NOT_FOUND,
        Error::Refused(_) => StatusCode::CONFLICT,
        Error::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        Error::Storage(error) => {
            tracing::error!(%error, "the journal failed");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    page(status, &format!("<p>{}</p>", sentence(status)))
}

fn sentence(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "There is no such payment.",
        StatusCode::CONFLICT => "This payment is closed; nothing was changed.",
        _ => "This does not work now; please try again.",
    }
}

/// Keys and currencies were checked when the charge came and hold nothing that HTML would read as its own.
fn charge_html(view: &ChargeView) -> String {
    let ChargeView { key, amount, currency, .. } = view;
    let asked = format!("<p>Payment <b>{key}</b> of <b>{amount} {currency}</b> (minor units)</p>");
    let rest = match view.status {
        ChargeStatus::Requested | ChargeStatus::Pending if view.payable => format!(
            "<form method=\"post\" action=\"/checkout/{key}/pay\"><button type=\"submit\">Pay</button></form>\n\
             <form method=\"post\" action=\"/checkout/{key}/decline\"><button type=\"submit\">Decline</button></form>"
        ),
        ChargeStatus::Requested | ChargeStatus::Pending => "<p>Nothing to do here: it is being processed.</p>".into(),
        ChargeStatus::Captured => "<p>Paid. Thank you.</p>".into(),
        ChargeStatus::Declined => "<p>Declined.</p>".into(),
        ChargeStatus::Failed => "<p>Failed.</p>".into(),
        ChargeStatus::Cancelled => "<p>Cancelled by the shop.</p>".into(),
    };
    format!("{asked}\n{rest}")
}

fn page(status: StatusCode, inner: &str) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(format!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Checkout</title>\n\
             <style>body{{font-family:sans-serif;margin:3em auto;max-width:30em}}button{{font-size:1.2em}}</style></head>\n\
             <body>\n<h1>Checkout</h1>\n{inner}\n</body>\n</html>\n"
        ))
}
