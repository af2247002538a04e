//! Any value of any type: what is written reads back, and how it looks as JSON.
//!
//! Values are made from the schemas, so a type or field that is added is covered without a word here.

use std::collections::BTreeSet;

use apache_avro::Schema;
use apache_avro::schema::RecordField;
use events::code;
use events::schema::SCHEMAS;
use events::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::golden::{Vector, codec, is_newest, path_of, vectors};
use crate::kinds::{kind, topic};

/// The codes that a field's documentation lists.
fn codes(doc: &str) -> Option<Vec<String>> {
    let (_, list) = doc.rsplit_once("ne of ")?;
    let codes: Vec<String> = list.trim_end_matches('.').split(", ").map(str::to_owned).collect();
    let is_code =
        |code: &String| !code.is_empty() && code.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
    codes.iter().all(is_code).then_some(codes)
}

fn any_id() -> BoxedStrategy<Value> {
    (1..=i64::MAX).prop_map(|id| json!(id.to_string())).boxed()
}

fn any_time() -> BoxedStrategy<Value> {
    // The years 1 to 9999, all that RFC 3339 can write.
    (-62_135_596_800_000..=253_402_300_799_999_i64).prop_map(|ms| json!(Timestamp(ms).to_string())).boxed()
}

fn any_string(field: &RecordField) -> BoxedStrategy<Value> {
    match codes(field.doc.as_deref().unwrap_or_default()) {
        Some(codes) => prop::sample::select(codes).prop_map(Value::from).boxed(),
        None if field.name == "currency" => "[A-Z]{3}".prop_map(Value::from).boxed(),
        None => any::<String>().prop_map(Value::from).boxed(),
    }
}

fn any_of(schema: &Schema, field: &RecordField, root: &Schema) -> BoxedStrategy<Value> {
    match schema {
        Schema::Long if field.name.ends_with("_id") || field.name == "short" => any_id(),
        Schema::Long => any::<i64>().prop_map(Value::from).boxed(),
        Schema::TimestampMillis => any_time(),
        Schema::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Schema::String => any_string(field),
        Schema::Array(array) => {
            prop::collection::vec(any_of(&array.items, field, root), 0..4).prop_map(Value::from).boxed()
        }
        Schema::Union(union) => {
            let some = any_of(&union.variants()[1], field, root);
            prop_oneof![Just(Value::Null), some].boxed()
        }
        Schema::Record(_) => any_record(schema, root),
        Schema::Ref { name } => any_record(&named(root, name.name()).expect("defined before it is used"), root),
        other => panic!("no field of ours is {other:?}"),
    }
}

/// The record of this name, defined somewhere in a schema.
fn named(schema: &Schema, wanted: &str) -> Option<Schema> {
    match schema {
        Schema::Record(record) if record.name.name() == wanted => Some(schema.clone()),
        Schema::Record(record) => record.fields.iter().find_map(|field| named(&field.schema, wanted)),
        Schema::Array(array) => named(&array.items, wanted),
        Schema::Union(union) => union.variants().iter().find_map(|variant| named(variant, wanted)),
        _ => None,
    }
}

fn any_record(schema: &Schema, root: &Schema) -> BoxedStrategy<Value> {
    let Schema::Record(record) = schema else { panic!("a record") };
    let fields: Vec<_> =
        record.fields.iter().map(|field| (Just(field.name.clone()), any_of(&field.schema, field, root))).collect();
    fields.prop_map(|fields| Value::Object(fields.into_iter().collect())).boxed()
}

#[test]
fn whatever_is_written_reads_back() {
    let vectors = vectors();
    let codec = codec(&vectors);
    for def in SCHEMAS.iter().filter(|def| is_newest(def)) {
        let schema = Schema::parse_str(def.text).unwrap();
        let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&any_record(&schema, &schema), |json| {
            let value = (kind(def.topic, def.full_name).encode)(&codec, &json).map_err(TestCaseError::fail)?;
            let read = (topic(def.topic).decode)(&codec, &value);
            prop_assert_eq!(read, Ok((def.full_name, json)));
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{}: {error}", path_of(def)));
    }
}

#[test]
fn codes_are_the_ones_documented() {
    let vectors = vectors();
    let codec = codec(&vectors);
    for vector in vectors.iter().filter(|vector| vector.case == "full") {
        let Schema::Record(record) = Schema::parse_str(vector.def.text).unwrap() else { panic!("a record") };
        for field in &record.fields {
            let Some(codes) = codes(field.doc.as_deref().unwrap()) else {
                continue;
            };
            let with = |code: &str| {
                let mut json = vector.json.clone();
                json[&field.name] = if json[&field.name].is_array() { json!([code]) } else { json!(code) };
                (kind(vector.def.topic, vector.def.full_name).encode)(&codec, &json)
            };
            for code in &codes {
                assert!(with(code).is_ok(), "{}: {} {code}", path_of(vector.def), field.name);
            }
            let error = with("NO_SUCH_CODE").unwrap_err();
            assert!(error.contains("`NO_SUCH_CODE` is no "), "{}: {} {error}", path_of(vector.def), field.name);
        }
    }
}

#[test]
fn documented_codes_are_whole_sets() {
    fn set<C: Copy + ToString>(all: &[C]) -> Vec<String> {
        all.iter().map(|code| code.to_string()).collect()
    }
    let sets = [
        set(code::CustomerReason::ALL),
        set(code::CancelReason::ALL),
        set(code::RejectReason::ALL),
        set(code::AdjustReason::ALL),
        set(code::OperatorRefundReason::ALL),
        set(code::RefundReason::ALL),
        set(code::GiveUpReason::ALL),
        set(code::GatewayResult::ALL),
        set(code::NoticeKind::ALL),
        set(code::Channel::ALL),
        set(code::SkipReason::ALL),
    ];
    let mut documented = BTreeSet::new();
    for def in SCHEMAS.iter().filter(|def| is_newest(def)) {
        let Schema::Record(record) = Schema::parse_str(def.text).unwrap() else { panic!("a record") };
        documented.extend(record.fields.iter().filter_map(|field| codes(field.doc.as_deref().unwrap())));
    }
    assert_eq!(documented, sets.into_iter().collect());
}

#[test]
fn a_number_that_is_no_id_is_damage() {
    // CancelOrder of order 1; zig-zag 2 is 1, 0 is 0 and 1 is -1.
    let vectors = vectors();
    let codec = codec(&vectors);
    let minimal = |vector: &&Vector| vector.case == "minimal";
    for vector in vectors.iter().filter(minimal) {
        for no_id in [0, 1] {
            let mut value = vector.value.clone();
            value[5] = no_id;
            let error = (topic(vector.def.topic).decode)(&codec, &value).unwrap_err();
            assert!(error.to_string().contains("positive 64-bit integer"), "{error}");
        }
    }
}

#[test]
fn json_has_ids_as_strings_and_times_as_rfc_3339() {
    let vectors = vectors();
    let codec = codec(&vectors);
    let full = |name: &str| {
        let mut found = vectors.iter().filter(|vector| vector.case == "full");
        found.find(|vector| vector.def.full_name == name).unwrap()
    };
    let placed = full("orderlog.order.OrderPlaced");
    let (_, json) = (topic("order.events").decode)(&codec, &placed.value).unwrap();
    assert_eq!(json["order_id"], "226873219453231104");
    assert_eq!(json["lines"][0]["product_id"], "1082185");
    assert_eq!(json["command_id"], "226873219453231105");
    assert_eq!(json["pay_by"], "2026-01-01T00:00:00.789Z");
    assert_eq!(json["lines"][0]["unit_price"], json!({"amount": 99, "currency": "USD"}));

    for (field, wrong) in [("order_id", json!(7)), ("pay_by", json!(1_767_225_600_789_i64)), ("pay_by", json!("soon"))]
    {
        let mut json = placed.json.clone();
        json[field] = wrong;
        assert!((kind("order.events", placed.def.full_name).encode)(&codec, &json).is_err(), "{field}");
    }
}
