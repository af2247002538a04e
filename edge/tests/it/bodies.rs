//! Hundreds of bad bodies: never a 500, never a command, always a problem that names the field (S12, S16, S26, S28).

use edge::token::Role;
use proptest::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};

use crate::limits::raw;
use crate::site::{Parcel, Service, parcel, problem};

/// Puts `value` where the pointer leads.
fn with(pointer: &str, value: Value) -> Value {
    let mut body = json!({"items": [{"product_id": "1082185", "quantity": 2}, {"product_id": "7", "quantity": 1}], "note": "n", "express": true});
    *body.pointer_mut(pointer).unwrap() = value;
    body
}

fn wrong_values() -> Vec<Value> {
    let numbers = ["0", "-1", "1.5", "1e3", "1e400", "-0.0", "1000001", "9223372036854775808", "18446744073709551616"];
    let mut values: Vec<Value> = numbers.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    values.extend([
        json!(null),
        json!(false),
        json!(""),
        json!("x"),
        json!("-5"),
        json!("01"),
        json!("'; DROP TABLE commands; --"),
    ]);
    values.extend([
        json!("\u{0}"),
        json!("x".repeat(300)),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"a": 1}),
        Value::from(vec![Value::Null; 300]),
    ]);
    values
}

#[actix_web::test]
async fn every_wrong_value_is_named_by_its_pointer() {
    let service = Service::start().await;
    let mut sent = 0;
    for pointer in ["/items", "/items/0", "/items/1/product_id", "/items/1/quantity", "/note", "/express"] {
        for (index, value) in wrong_values().into_iter().enumerate() {
            let valid = edge::fields::parse::<Parcel>(with(pointer, value.clone()).to_string().as_bytes()).is_ok();
            let response =
                service.make(&format!("wrong{pointer}-{index}"), &with(pointer, value.clone())).send().await.unwrap();
            if valid {
                assert_eq!(response.status(), 202, "{pointer} {value}");
                continue;
            }
            let problem = problem(response, 422, "VALIDATION").await;
            let named = problem["errors"][0]["pointer"].as_str().unwrap();
            assert!(named.starts_with(pointer), "{pointer} {value}: {problem}");
            sent += 1;
        }
    }
    assert!(sent > 100, "{sent}");
    service.stop().await;
}

#[actix_web::test]
async fn unknown_missing_and_doubled_fields_are_named_all_at_once() {
    let service = Service::start().await;
    let body = r#"{"items":[{"product_id":7,"quantity":1,"price":1},{"quantity":1,"quantity":2}],"status":"PAID","customer_id":"ben"}"#;
    let problem = problem(service.make_raw("many-mistakes", body).send().await.unwrap(), 422, "VALIDATION").await;
    let pointers: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    let expected = [
        "/items/0/product_id",
        "/items/0/price",
        "/items/1/product_id",
        "/items/1/quantity",
        "/status",
        "/customer_id",
    ];
    assert_eq!(pointers, expected);
    service.stop().await;
}

#[actix_web::test]
async fn what_is_not_json_is_400_and_another_media_type_415() {
    let service = Service::start().await;
    for (index, bad) in ["", " ", "{", "[1,]", "{\"a\":}", "{} x", "nul", "\u{feff}{}", "{'a':1}", "a=1&b=2", "<a/>"]
        .into_iter()
        .enumerate()
    {
        let response = service.make_raw(&format!("not-json-{index}"), bad).send().await.unwrap();
        problem(response, 400, "NOT_JSON").await;
    }
    let response = service.make_raw("not-utf-8", vec![b'{', b'"', 0xff, b'"', b':', b'1', b'}']).send().await.unwrap();
    problem(response, 400, "NOT_JSON").await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json; charset=latin1",
        "x",
    ] {
        let request = service
            .as_role(Method::POST, "/v1/parcels", "anna", Role::Customer)
            .header("Idempotency-Key", "media-type");
        let request = request.header("Content-Type", kind).body(parcel(1).to_string());
        problem(request.send().await.unwrap(), 415, "UNSUPPORTED_MEDIA_TYPE").await;
    }
    let request =
        service.as_role(Method::POST, "/v1/parcels", "anna", Role::Customer).header("Idempotency-Key", "media-type");
    problem(request.body("{}").send().await.unwrap(), 415, "UNSUPPORTED_MEDIA_TYPE").await;
    let packed = service.make("compressed", &parcel(1)).header("Content-Encoding", "gzip");
    problem(packed.send().await.unwrap(), 415, "UNSUPPORTED_MEDIA_TYPE").await;
    let utf8 =
        service.as_role(Method::POST, "/v1/parcels", "anna", Role::Customer).header("Idempotency-Key", "media-type");
    let utf8 = utf8.header("Content-Type", "application/json; charset=UTF-8").body(parcel(1).to_string());
    assert_eq!(utf8.send().await.unwrap().status(), 202);
    service.stop().await;
}

#[actix_web::test]
async fn sizes_and_depths_have_their_limits() {
    let service = Service::start().await;
    let padded = |length: usize| {
        let mut body = parcel(1).to_string();
        body.push_str(&" ".repeat(length - body.len()));
        body
    };
    assert_eq!(service.make_raw("just-fits", padded(64 * 1024)).send().await.unwrap().status(), 202);
    problem(service.make_raw("too-large", padded(64 * 1024 + 1)).send().await.unwrap(), 413, "BODY_TOO_LARGE").await;
    let token = crate::support::token("anna", Role::Customer);
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000)).repeat(5);
    let head = format!(
        "POST /v1/parcels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: in-chunks\r\n\
         Content-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let status = raw(&service, &format!("{head}{chunk}0\r\n\r\n")).await;
    assert!(status.starts_with("HTTP/1.1 413"), "{status}");
    let deep = |depth: usize| format!("{{\"items\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    problem(service.make_raw("deep-body", deep(100)).send().await.unwrap(), 422, "VALIDATION").await;
    problem(service.make_raw("deeper-body", deep(32_000)).send().await.unwrap(), 422, "VALIDATION").await;
    let lines = |count: usize| json!({"items": vec![json!({"product_id": "7", "quantity": 1}); count]});
    assert_eq!(service.make("lines-200", &lines(200)).send().await.unwrap().status(), 202);
    problem(service.make("lines-201", &lines(201)).send().await.unwrap(), 422, "VALIDATION").await;
    service.stop().await;
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("1082185")),
    ];
    let name =
        prop_oneof![Just("items".to_owned()), Just("product_id".to_owned()), Just("quantity".to_owned()), "\\PC{0,6}"];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_read_or_named(body in any_json()) {
        if let Err(problem) = edge::fields::parse::<Parcel>(body.to_string().as_bytes()) {
            prop_assert_eq!(problem.status().as_u16(), 422);
            prop_assert!(!problem.errors().is_empty());
            // A pointer names what is there, or what is missing from what is there.
            for error in problem.errors() {
                let parent = error.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
                prop_assert!(body.pointer(parent).is_some(), "{} in {}", error.pointer, body);
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let problem = edge::fields::parse::<Parcel>(&bytes).expect_err("random bytes are no parcel");
        prop_assert!(matches!(problem.status().as_u16(), 400 | 422));
    }

    #[test]
    fn a_cut_or_flipped_body_is_refused_or_read(at in 0..60_usize, flip in any::<u8>()) {
        let mut bytes = parcel(2).to_string().into_bytes();
        let at = at % bytes.len();
        prop_assert!(edge::fields::parse::<Parcel>(&bytes[..at]).is_err());
        bytes[at] ^= flip;
        if let Err(problem) = edge::fields::parse::<Parcel>(&bytes) {
            prop_assert!(matches!(problem.status().as_u16(), 400 | 422));
        }
    }
}
