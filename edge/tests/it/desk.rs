//! The admin routes of the dead-letter desk, over real HTTP: who gets in, and what a bad request is told.
//!
//! The desk is closed here: what it does is `engine`'s contract, and `e2e` asks a real one.

use edge::token::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::processors::Port;
use crate::site::problem;
use crate::support::token;

const REDRIVE: &str = "/admin/dead-letters/redrive";
const DISCARD: &str = "/admin/dead-letters/discard";

#[actix_web::test]
async fn only_operators_sit_at_the_desk() {
    let port = Port::open(None);
    let routes = [
        (Method::GET, "/admin/dead-letters"),
        (Method::GET, "/admin/dead-letters/records"),
        (Method::GET, "/admin/dead-letters/records/order.events/0/1"),
        (Method::GET, "/admin/held"),
        (Method::POST, REDRIVE),
        (Method::POST, DISCARD),
        (Method::POST, "/admin/dead-letters/standing"),
    ];
    for (method, path) in routes {
        let none = port.request(method.clone(), path).send().await.unwrap();
        problem(none, 401, "UNAUTHENTICATED").await;
        let customer = port.request(method.clone(), path).bearer_auth(token("anna", Role::Customer));
        problem(customer.send().await.unwrap(), 403, "FORBIDDEN").await;
    }
    let get = port.request(Method::GET, "/admin/dead-letters").bearer_auth(token("olga", Role::Operator));
    problem(get.send().await.unwrap(), 503, "UNAVAILABLE").await;
    port.running.stop().await;
}

#[actix_web::test]
async fn a_bad_wish_is_told_which_field_is_wrong() {
    let port = Port::open(None);
    let one = json!({"topic": "order.events", "partition": 0, "offset": 7});
    let bad = [
        (json!({"all": true}), "/reason"),
        (json!({"reason": "x"}), ""),
        (json!({"reason": "x", "all": false}), ""),
        (json!({"reason": "x", "all": true, "key": "7"}), ""),
        (json!({"reason": "x", "group": "nope"}), "/group"),
        (json!({"reason": "x", "key": 7}), "/key"),
        (json!({"reason": "x", "record": {"topic": "order.events", "partition": 0}}), "/record/offset"),
        (
            json!({"reason": "x", "record": {"topic": "order.events", "partition": -1, "offset": 7}}),
            "/record/partition",
        ),
        (
            json!({"reason": "x", "record": {"topic": "t", "partition": 0, "offset": 7, "effect": "a b"}}),
            "/record/effect",
        ),
        (json!({"reason": "a\u{0}b", "record": one}), "/reason"),
        (json!({"reason": "x", "all": true, "limit": 0}), "/limit"),
        (json!({"reason": "x", "all": true, "dry_run": "yes"}), "/dry_run"),
        (json!({"reason": "x", "all": true, "failed_before": "yesterday"}), "/failed_before"),
        (json!({"reason": "x", "all": true, "why": "not"}), "/why"),
    ];
    for path in [REDRIVE, DISCARD] {
        for (body, pointer) in &bad {
            let request = port.request(Method::POST, path).bearer_auth(token("olga", Role::Operator)).json(body);
            let told: Value = problem(request.send().await.unwrap(), 422, "VALIDATION").await;
            let pointers: Vec<&str> =
                told["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
            assert_eq!(pointers, [*pointer], "{body}");
        }
    }
    port.running.stop().await;
}

#[actix_web::test]
async fn a_bad_list_is_told_which_parameter_is_wrong() {
    let port = Port::open(None);
    for (query, pointer) in [("group=x", "/group"), ("key=x", "/key"), ("limit=0", "/limit"), ("cursor=x", "/cursor")] {
        let get = port.request(Method::GET, &format!("/admin/held?{query}"));
        let told: Value =
            problem(get.bearer_auth(token("olga", Role::Operator)).send().await.unwrap(), 422, "VALIDATION").await;
        assert_eq!(told["errors"][0]["pointer"], pointer);
    }
    let get = port.request(Method::GET, "/admin/dead-letters/records/order.events/0/1?effect=");
    let told: Value =
        problem(get.bearer_auth(token("olga", Role::Operator)).send().await.unwrap(), 422, "VALIDATION").await;
    assert_eq!(told["errors"][0]["pointer"], "/effect");
    port.running.stop().await;
}
