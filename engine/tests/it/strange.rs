//! Records that no processor wrote, and bytes that mean nothing.

use events::envelope::{self, Headers};

use crate::support::registry_url;
use crate::toy::{Act, COMMAND, COMMANDS, FOREIGN};
use crate::world::{World, key_of};

/// Key, value, and the class and code that it dies of.
type Poison = (Option<Vec<u8>>, Option<Vec<u8>>, &'static str, &'static str);

fn text<'a>(record: &'a engine::record::Record, name: &str) -> Option<&'a str> {
    envelope::text(&record.headers, name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strange_and_poison_records_are_kept_while_others_go_on() {
    let mut world = World::new().await;
    world.registry = registry_url();
    let (key, away) = (key_of(0, 0), key_of(1, 0));
    let ask = |key: i64, id: i64| format!(r#"{{"type":"{COMMAND}","key":{key},"id":{id},"act":{{"add":1}}}}"#);
    let named = |key: i64| key.to_string().into_bytes();
    let mine = Headers::from_iter([("x", &[0xff, 0x00][..]), ("ce_id", b"4711")]);
    let unknown = [0, 0x7f, 0xff, 0xff, 0xfe, 1, 2];
    // On the commands topic.
    let poison: [Poison; 8] = [
        (Some(named(key)), Some(b"no bytes of ours".to_vec()), "poison", "NOT_AVRO"),
        (Some(named(key)), Some(br#"{"type":"toy.Command","key":1}"#.to_vec()), "poison", "DAMAGED"),
        (Some(named(key)), Some(unknown.to_vec()), "poison", "UNKNOWN_SCHEMA"),
        (Some(named(key)), None, "poison", "NULL_VALUE"),
        (Some(b"8\xfe".to_vec()), Some(ask(8, 900).into_bytes()), "strange", "WRONG_KEY"),
        (None, Some(ask(8, 901).into_bytes()), "strange", "WRONG_KEY"),
        (Some(named(away)), Some(ask(away, 902).into_bytes()), "strange", "WRONG_PARTITION"),
        (Some(named(key)), Some(vec![b'x'; 3_000_000]), "poison", "NOT_AVRO"),
    ];
    let instance = world.start().await;
    let mut offsets = Vec::new();
    for (key, value, ..) in &poison {
        offsets.push(world.raw(COMMANDS, 0, key.as_deref(), value.as_deref(), &mine).await);
    }
    // On the foreign topic: no valid sequence, whatever else is wrong with it.
    let strange = world.raw(FOREIGN, 0, Some(&named(key)), Some(&unknown), &mine).await;
    let id = world.command(key, Act::Add(1)).await;
    let number = world.news(key, Act::Add(2)).await;
    world.applied_any_order(key, &[format!("command {id}: add 1"), format!("news {number}: add 2")]).await;
    world.settled().await;

    let letters = world.log("toy-svc.dlq").await;
    assert_eq!(letters.len(), poison.len() + 1);
    for ((key, value, class, code), offset) in poison.iter().zip(offsets) {
        let offset = offset.to_string();
        let source = world.kafka.topic(COMMANDS);
        let letter = letters
            .iter()
            .find(|letter| {
                text(letter, "failure-offset") == Some(&offset) && text(letter, "failure-topic") == Some(&source)
            })
            .unwrap_or_else(|| panic!("no letter of {code} at {offset}"));
        assert_eq!((text(letter, "failure-class"), text(letter, "failure-code")), (Some(*class), Some(*code)));
        assert_eq!(letter.key.as_ref(), key.as_ref());
        let kept = value.as_ref().map(|value| &value[..value.len().min(1_000_000)]);
        assert_eq!(letter.value.as_deref(), kept);
        assert_eq!(text(letter, "original-null"), value.is_none().then_some("true"));
        assert_eq!(text(letter, "original-ce_id"), Some("4711"));
        assert_eq!(letter.headers.get("original-x"), Some(&[0xff, 0x00][..]));
        assert_eq!(text(letter, "ce_type"), Some("orderlog.engine.RecordDied"));
        assert_eq!(text(letter, "ce_cause"), Some(&*format!("{source}/0/{offset}/")));
        assert_eq!(text(letter, "failure-service"), Some("toy-svc"));
    }
    let odd = letters.iter().find(|letter| text(letter, "failure-code") == Some("NO_SEQUENCE")).unwrap();
    assert_eq!(text(odd, "failure-offset"), Some(&*strange.to_string()));
    instance.stop().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_only_the_registry_knows_waits_for_an_upgrade() {
    let mut world = World::new().await;
    let registry = wiremock::MockServer::start().await;
    let known = wiremock::ResponseTemplate::new(200).set_body_string(r#"{"schema":"\"string\""}"#);
    wiremock::Mock::given(wiremock::matchers::path("/schemas/ids/77")).respond_with(known).mount(&registry).await;
    world.registry = registry.uri();
    let (key, other) = (key_of(0, 0), key_of(1, 0));
    let instance = world.start().await;
    world.raw(COMMANDS, 0, Some(key.to_string().as_bytes()), Some(&[0, 0, 0, 0, 77, 1]), &Headers::default()).await;
    let behind = world.command(key, Act::Add(1)).await;
    instance.says("schema 77 (no subject) is newer than this build: upgrade me").await;
    let id = world.command(other, Act::Add(1)).await;
    world.applied(other, &[&format!("command {id}: add 1")]).await;
    assert_eq!(world.history(key).await, Vec::<String>::new(), "what lies behind it waits");

    // A registry that turns out not to have it: then it is poison, and the others go on.
    registry.reset().await;
    let denied = wiremock::ResponseTemplate::new(404).set_body_string(r#"{"error_code":40403,"message":"none"}"#);
    wiremock::Mock::given(wiremock::matchers::any()).respond_with(denied).mount(&registry).await;
    world.applied(key, &[&format!("command {behind}: add 1")]).await;
    instance.live(2).await;
    world.settled().await;
    assert_eq!(world.log("toy-svc.dlq").await.len(), 1);
    instance.stop().await;
    world.finish().await;
}
