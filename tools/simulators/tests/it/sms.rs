//! SMS into the sink, and the list of what arrived.

use serde_json::{Value, json};

use crate::sink_stand::SinkStand;

fn sms(id: &str, order: u64) -> Value {
    json!({"message_id": id, "to": "+15550100", "body": format!("Order {order} has expired.")})
}

#[actix_web::test]
async fn repeats_are_kept_raw_and_in_order() {
    let (sink, _dir) = SinkStand::fresh().await;
    for id in ["a", "b", "a"] {
        let (status, answer) = sink.api.post("/sms", &sms(id, 9)).await;
        assert_eq!((status, &answer["message_id"]), (202, &json!(id)));
    }
    sink.api.post("/sms", &sms("c", 10)).await;
    let ids = |messages: &[Value]| {
        messages.iter().map(|message| message["message_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = sink.messages("").await;
    assert_eq!(ids(&all), ["a", "b", "a", "c"]);
    assert_eq!((&all[0]["channel"], &all[0]["subject"]), (&json!("SMS"), &json!(null)));
    let (_, page) = sink.api.get("/messages?order=9&limit=2").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&sink.messages(&format!("?order=9&limit=2&cursor={cursor}")).await), ["a"]);
}

#[actix_web::test]
async fn bad_input_is_refused_with_a_problem() {
    let (sink, _dir) = SinkStand::fresh().await;
    for (field, value) in [
        ("to", json!("5550100")),
        ("to", json!("+0123")),
        ("to", json!("+1")),
        ("to", json!("+12345678901234567")),
        ("body", json!("")),
        ("message_id", json!("")),
        ("message_id", json!(7)),
        ("more", json!(1)),
    ] {
        let mut body = sms("a", 1);
        body[field] = value;
        let (status, problem) = sink.api.post("/sms", &body).await;
        assert_eq!((status, problem["status"].as_u64()), (422, Some(422)), "{body}");
    }
    assert_eq!(sink.api.get("/messages?order=first").await.0, 422);
    assert_eq!(sink.api.get("/sms").await.0, 405);
    assert!(sink.messages("").await.is_empty());
}

#[actix_web::test]
async fn plans_concern_the_channel_they_name() {
    let (sink, _dir) = SinkStand::fresh().await;
    sink.api.plan(json!({"mode": "reject_4xx", "keys": ["EMAIL"]})).await;
    assert_eq!(sink.api.post("/sms", &sms("a", 1)).await.0, 202);
    sink.api.plan(json!({"mode": "reject_4xx", "keys": ["SMS"], "count": 1})).await;
    assert_eq!(sink.api.post("/sms", &sms("b", 1)).await.0, 429);
    sink.api.plan(json!({"mode": "down", "count": 1})).await;
    assert!(sink.api.send("/sms", &sms("c", 1)).await.is_err());
    sink.api.plan(json!({"mode": "cut_answer", "count": 1})).await;
    assert!(sink.api.send("/sms", &sms("d", 1)).await.is_err());
    let ids: Vec<_> = sink.messages("").await.iter().map(|message| message["message_id"].clone()).collect();
    assert_eq!(ids, ["a", "d"]);
}
