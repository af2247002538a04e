//! One command per key, whatever happens: S1 to S6, and the callback's S10.

use std::time::Duration;

use edge::config::Secret;
use edge::signature;
use edge::token::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::site::{GATEWAY_SECRET, Service, parcel, problem};
use crate::support::{Mood, eventually};

const KEY: &str = "8e03978e-40d5-43e8";

/// Makes a row as old as if its owner had died 10 s ago.
async fn age(service: &Service) {
    let aged = sqlx::query("UPDATE idempotency SET started_at = started_at - interval '10 s' WHERE answer IS NULL");
    assert_eq!(aged.execute(&service.pool).await.unwrap().rows_affected(), 1);
}

/// Folds the one record of the log into `commands`, as the processor would.
async fn decide(service: &Service) {
    sqlx::query(
        "INSERT INTO commands SELECT command_id, caller, key_hash, fingerprint, 0, 1, NULL, 'ParcelMade', subject, now()
         FROM idempotency",
    )
    .execute(&service.pool)
    .await
    .unwrap();
}

#[actix_web::test]
async fn a_command_is_in_the_log_before_its_202() {
    let service = Service::start().await;
    let response = service.make(KEY, &parcel(2)).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(!response.headers().contains_key("idempotency-replayed"));
    let body: Value = response.json().await.unwrap();
    let id = body["parcel_id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/parcels/{id}"));

    let records = service.log.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key, id);
    let header = |name: &str| events::envelope::text(&records[0].headers, name).map(str::to_owned);
    assert_eq!(header("ce_type").as_deref(), Some("orderlog.toy.MakeParcel"));
    assert_eq!(header("ce_source").as_deref(), Some("/toy-svc"));
    assert_eq!(header("ce_subject").as_deref(), Some(id));
    assert_eq!(header("content-type").as_deref(), Some("application/avro"));
    assert!(header("traceparent").is_some() && header("ce_time").is_some() && header("ce_sequence").is_none());
    service.stop().await;
}

#[actix_web::test]
async fn what_is_accepted_and_not_decided_is_known_by_its_caller() {
    let service = Service::start().await;
    let before = engine::clock::wall();
    let body: Value = service.make(KEY, &parcel(2)).send().await.unwrap().json().await.unwrap();
    let id = body["parcel_id"].as_str().unwrap().parse().unwrap();
    let (caller, at) = service.toy.commands.accepted_by(id).await.unwrap().unwrap();
    assert_eq!(caller, "anna");
    assert!(at >= before.minus(Duration::from_secs(1)) && at <= before.plus(Duration::from_secs(60)));
    assert_eq!(service.toy.commands.accepted_by(id + 1).await.unwrap(), None);
    service.stop().await;
}

#[actix_web::test]
async fn a_repeat_gets_the_same_bytes_also_after_a_restart_and_when_it_prefers_to_wait() {
    let service = Service::start().await;
    let first = service.make(KEY, &parcel(2)).send().await.unwrap().bytes().await.unwrap();
    let other = Service::with(service.pool.clone(), 9_000, 512, true).await;
    for process in [&service, &other] {
        // Bare and quoted are one key; so are two spellings of one body.
        let spaced = r#" { "items" : [ {"quantity":2, "product_id":"1082185"} ] } "#;
        let again = process.make_raw(&format!("\"{KEY}\""), spaced).header("Prefer", "wait=5").send().await.unwrap();
        assert_eq!(again.status(), 202);
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        assert!(again.headers().contains_key("location"));
        assert_eq!(again.bytes().await.unwrap(), first);
    }
    assert_eq!(service.log.records().len() + other.log.records().len(), 1);
    other.stop().await;
    service.stop().await;
}

#[actix_web::test]
async fn a_key_belongs_to_its_caller_and_its_body() {
    let service = Service::start().await;
    let anna: Value = service.make(KEY, &parcel(2)).send().await.unwrap().json().await.unwrap();
    let ben = service.as_role(Method::POST, "/v1/parcels", "ben", Role::Customer);
    let ben = ben.header("Idempotency-Key", KEY).json(&parcel(2)).send().await.unwrap();
    assert!(!ben.headers().contains_key("idempotency-replayed"));
    let ben: Value = ben.json().await.unwrap();
    assert_ne!(anna["parcel_id"], ben["parcel_id"]);
    let other = service.make(KEY, &parcel(3)).send().await.unwrap();
    problem(other, 422, "IDEMPOTENCY_KEY_REUSED").await;
    assert_eq!(service.log.records().len(), 2);
    service.stop().await;
}

#[actix_web::test]
async fn a_key_is_required_and_has_a_form() {
    let service = Service::start().await;
    let keyless = service.as_role(Method::POST, "/v1/parcels", "anna", Role::Customer).json(&parcel(1));
    problem(keyless.send().await.unwrap(), 400, "IDEMPOTENCY_KEY_MISSING").await;
    for bad in ["", "1234567", "with space", "tab\there", &"k".repeat(256), "\"1234567\""] {
        let response = service.make(bad, &parcel(1)).send().await.unwrap();
        problem(response, 400, "IDEMPOTENCY_KEY_MALFORMED").await;
    }
    let bytes = reqwest::header::HeaderValue::from_bytes("schlüssel-1".as_bytes()).unwrap();
    let request = service.as_role(Method::POST, "/v1/parcels", "anna", Role::Customer).header("Idempotency-Key", bytes);
    problem(request.json(&parcel(1)).send().await.unwrap(), 400, "IDEMPOTENCY_KEY_MALFORMED").await;
    assert_eq!(service.make(&"k".repeat(255), &parcel(1)).send().await.unwrap().status(), 202);
    service.stop().await;
}

#[actix_web::test]
async fn fifty_twins_make_one_command() {
    let service = Service::start().await;
    service.log.set(Mood::Slow);
    let body = parcel(2);
    let twins: Vec<_> = (0..50).map(|_| tokio::spawn(service.make(KEY, &body).send())).collect();
    // All but the one that appends are answered while it does.
    let refused = "http_requests_total{method=\"POST\",route=\"/v1/parcels\",status=\"409\"} 49";
    eventually("49 twins refused", async || {
        let metrics = service.client.get(format!("{}/metrics", service.admin)).send().await.unwrap();
        metrics.text().await.unwrap().contains(refused).then_some(())
    })
    .await;
    service.log.set(Mood::Kind);
    let mut accepted = 0;
    for twin in twins {
        let response = twin.await.unwrap().unwrap();
        if response.status() == 202 {
            accepted += 1;
        } else {
            let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=10).contains(&seconds));
            problem(response, 409, "IDEMPOTENCY_KEY_IN_USE").await;
        }
    }
    assert_eq!((accepted, service.log.records().len()), (1, 1));
    service.stop().await;
}

#[actix_web::test]
async fn an_unknown_outcome_is_503_and_the_same_key_resolves_it_with_the_same_bytes() {
    for mood in [Mood::LosesReply, Mood::LosesRecord] {
        let service = Service::start().await;
        service.log.set(mood);
        let response = service.make(KEY, &parcel(2)).send().await.unwrap();
        assert!(response.headers().contains_key("retry-after"));
        problem(response, 503, "UNAVAILABLE").await;
        service.log.set(Mood::Kind);
        problem(service.make(KEY, &parcel(2)).send().await.unwrap(), 409, "IDEMPOTENCY_KEY_IN_USE").await;
        age(&service).await;
        // Another body does not take over, and does not make the row younger.
        problem(service.make(KEY, &parcel(3)).send().await.unwrap(), 422, "IDEMPOTENCY_KEY_REUSED").await;
        let response = service.make(KEY, &parcel(2)).send().await.unwrap();
        assert_eq!(response.status(), 202);
        let body: Value = response.json().await.unwrap();
        let records = service.log.records();
        assert_eq!(records.len(), if mood == Mood::LosesReply { 2 } else { 1 });
        for record in &records {
            assert_eq!(record.key, body["parcel_id"].as_str().unwrap());
            assert_eq!((&record.value, &record.headers), (&records[0].value, &records[0].headers));
        }
        service.stop().await;
    }
}

#[actix_web::test]
async fn of_many_who_take_over_one_does() {
    let service = Service::start().await;
    service.log.set(Mood::LosesRecord);
    problem(service.make(KEY, &parcel(2)).send().await.unwrap(), 503, "UNAVAILABLE").await;
    age(&service).await;
    service.log.set(Mood::Kind);
    let other = Service::with(service.pool.clone(), 9_000, 512, true).await;
    let body = parcel(2);
    let processes = [&service, &other];
    let twins: Vec<_> = (0..40).map(|twin| tokio::spawn(processes[twin % 2].make(KEY, &body).send())).collect();
    let mut bodies = Vec::new();
    for twin in twins {
        let response = twin.await.unwrap().unwrap();
        match response.status().as_u16() {
            202 => bodies.push(response.bytes().await.unwrap()),
            status => assert_eq!(status, 409),
        }
    }
    assert_eq!(service.log.records().len() + other.log.records().len(), 1);
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
    other.stop().await;
    service.stop().await;
}

#[actix_web::test]
async fn a_key_that_only_the_projection_knows_gets_the_same_answer() {
    let service = Service::start().await;
    let first = service.make(KEY, &parcel(2)).send().await.unwrap().bytes().await.unwrap();
    decide(&service).await;
    sqlx::query("DELETE FROM idempotency").execute(&service.pool).await.unwrap();
    let again = service.make(KEY, &parcel(2)).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotency-replayed"].as_bytes()), (202, &b"true"[..]));
    assert!(again.headers().contains_key("location"));
    assert_eq!(again.bytes().await.unwrap(), first);
    problem(service.make(KEY, &parcel(3)).send().await.unwrap(), 422, "IDEMPOTENCY_KEY_REUSED").await;
    assert_eq!(service.log.records().len(), 1);
    service.stop().await;
}

#[actix_web::test]
async fn a_command_that_was_decided_while_its_answer_was_not_stored_needs_no_take_over() {
    let service = Service::start().await;
    service.log.set(Mood::LosesReply);
    problem(service.make(KEY, &parcel(2)).send().await.unwrap(), 503, "UNAVAILABLE").await;
    decide(&service).await;
    let again = service.make(KEY, &parcel(2)).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotency-replayed"].as_bytes()), (202, &b"true"[..]));
    assert_eq!(service.log.records().len(), 1);
    service.stop().await;
}

#[actix_web::test]
async fn what_is_wrong_with_a_request_is_not_pinned_to_its_key() {
    let service = Service::start().await;
    problem(service.make(KEY, &parcel(0)).send().await.unwrap(), 422, "VALIDATION").await;
    *service.toy.sold_out.lock().unwrap() = true;
    problem(service.make(KEY, &parcel(2)).send().await.unwrap(), 422, "SOLD_OUT").await;
    *service.toy.sold_out.lock().unwrap() = false;
    assert_eq!(service.make(KEY, &parcel(3)).send().await.unwrap().status(), 202);
    // What a new command must pass is not asked of a known one.
    *service.toy.sold_out.lock().unwrap() = true;
    let again = service.make(KEY, &parcel(3)).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotency-replayed"].as_bytes()), (202, &b"true"[..]));
    problem(service.make(KEY, &parcel(4)).send().await.unwrap(), 422, "IDEMPOTENCY_KEY_REUSED").await;
    service.stop().await;
}

#[actix_web::test]
async fn a_key_is_taken_over_although_a_new_command_would_be_refused_by_now() {
    let service = Service::start().await;
    service.log.set(Mood::LosesRecord);
    problem(service.make(KEY, &parcel(2)).send().await.unwrap(), 503, "UNAVAILABLE").await;
    service.log.set(Mood::Kind);
    *service.toy.sold_out.lock().unwrap() = true;
    problem(service.make(KEY, &parcel(2)).send().await.unwrap(), 409, "IDEMPOTENCY_KEY_IN_USE").await;
    age(&service).await;
    problem(service.make(KEY, &parcel(3)).send().await.unwrap(), 422, "IDEMPOTENCY_KEY_REUSED").await;
    let response = service.make(KEY, &parcel(2)).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let body = response.bytes().await.unwrap();
    assert_eq!(service.make(KEY, &parcel(2)).send().await.unwrap().bytes().await.unwrap(), body);
    assert_eq!(service.log.records().len(), 1);
    service.stop().await;
}

#[actix_web::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let service = Service::start().await;
    service.log.set(Mood::Slow);
    let request = service.make(KEY, &parcel(2)).timeout(Duration::from_millis(300));
    assert!(request.send().await.unwrap_err().is_timeout());
    service.log.set(Mood::Kind);
    let stored = "SELECT answer FROM idempotency WHERE answer IS NOT NULL";
    let answer: Vec<u8> = eventually("the answer stored", async || {
        sqlx::query_scalar(stored).fetch_optional(&service.pool).await.unwrap()
    })
    .await;
    let again = service.make(KEY, &parcel(2)).send().await.unwrap();
    assert_eq!(again.bytes().await.unwrap(), answer);
    assert_eq!(service.log.records().len(), 1);
    service.stop().await;
}

#[actix_web::test]
async fn nothing_is_pinned_while_commands_of_before_are_undecided() {
    let service = Service::start().await;
    *service.log.refuses.lock().unwrap() = Some("2 partitions are not read up to the end of the old log".to_owned());
    problem(service.make(KEY, &parcel(2)).send().await.unwrap(), 503, "UNAVAILABLE").await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM idempotency").fetch_one(&service.pool).await.unwrap();
    assert_eq!((rows, service.log.records().len()), (0, 0));
    service.stop().await;
}

#[actix_web::test]
async fn who_prefers_to_wait_is_told_the_decision() {
    let service = Service::start().await;
    let waiting = |key: &str| service.make(key, &parcel(2)).header("Prefer", "wait=5");
    // Not decided in time.
    assert_eq!(waiting("waiting-1").send().await.unwrap().status(), 202);
    let decided = |refused: Option<&str>| engine::wait::Decided {
        command_id: events::id::CommandId(0),
        event_type: "orderlog.toy.ParcelMade".to_owned(),
        refused: refused.map(str::to_owned),
        subject: 0,
        partition: 0,
        sequence: 1,
    };
    *service.log.decided.lock().unwrap() = Some(decided(None));
    let made = waiting("waiting-2").send().await.unwrap();
    assert_eq!(made.status(), 201);
    assert_eq!(made.json::<Value>().await.unwrap()["status"], "MADE");
    // Who does not prefer it is answered at once.
    assert_eq!(service.make("waiting-3", &parcel(2)).send().await.unwrap().status(), 202);
    *service.log.decided.lock().unwrap() = Some(decided(Some("PRICE_CHANGED")));
    let refused = problem(waiting("waiting-4").send().await.unwrap(), 409, "PRICE_CHANGED").await;
    assert!(refused["parcel_id"].is_string());
    service.stop().await;
}

#[actix_web::test]
async fn a_put_needs_no_key_and_each_is_a_command_of_its_own() {
    let service = Service::start().await;
    for _ in 0..2 {
        let put = service.as_role(Method::PUT, "/v1/parcels/7", "olga", Role::Operator).json(&parcel(1));
        assert_eq!(put.send().await.unwrap().status(), 202);
    }
    service.log.set(Mood::LosesReply);
    let put = service.as_role(Method::PUT, "/v1/parcels/7", "olga", Role::Operator).json(&parcel(1));
    problem(put.send().await.unwrap(), 503, "UNAVAILABLE").await;
    let ids: Vec<_> =
        service.log.records().iter().map(|record| record.headers.get("ce_id").unwrap().to_vec()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
    service.stop().await;
}

#[actix_web::test]
async fn a_callback_has_effect_once() {
    let service = Service::start().await;
    let secret = Secret::new(GATEWAY_SECRET);
    let now = u64::try_from(engine::clock::wall().0 / 1000).unwrap();
    let body = json!({"event_id": "evt_00000001"}).to_string();
    let send = |time: u64, body: String, secret: &Secret| {
        let header = signature::sign(secret, time, body.as_bytes());
        let request = service.request(Method::POST, "/v1/told").header(signature::HEADER, header);
        request.header("Content-Type", "application/json").body(body).send()
    };
    for time in [now, now, now - 290] {
        assert_eq!(send(time, body.clone(), &secret).await.unwrap().status(), 200);
    }
    assert_eq!(service.log.records().len(), 1);
    problem(send(now - 310, body.clone(), &secret).await.unwrap(), 401, "BAD_SIGNATURE").await;
    problem(send(now + 310, body.clone(), &secret).await.unwrap(), 401, "BAD_SIGNATURE").await;
    let wrong = Secret::new("another-secret-entirely");
    problem(send(now, body.clone(), &wrong).await.unwrap(), 401, "BAD_SIGNATURE").await;
    // The signature is judged before the bytes are parsed.
    problem(send(now, "{".to_owned(), &wrong).await.unwrap(), 401, "BAD_SIGNATURE").await;
    problem(send(now, "{".to_owned(), &secret).await.unwrap(), 400, "NOT_JSON").await;
    let unsigned = service.request(Method::POST, "/v1/told").json(&json!({"event_id": "evt_00000001"}));
    problem(unsigned.send().await.unwrap(), 401, "BAD_SIGNATURE").await;
    service.stop().await;
}
