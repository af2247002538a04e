//! The schema files: complete, documented, and those of the structs.
//!
//! Whether a new version is compatible with the stored ones is the registry's to say (`orderctl schemas check`).

use std::collections::{BTreeMap, BTreeSet};

use events::schema::{SCHEMAS, SchemaDef};
use serde_json::Value;

use crate::golden::{is_newest, path_of, root, vectors};
use crate::kinds::{KINDS, TOPICS};

fn parse(def: &SchemaDef) -> Value {
    serde_json::from_str(def.text).unwrap_or_else(|error| panic!("{}: {error}", path_of(def)))
}

fn fields(record: &Value) -> &Vec<Value> {
    record["fields"].as_array().expect("a record has fields")
}

/// The records defined anywhere in a schema, the outermost first.
fn records(schema: &Value) -> Vec<&Value> {
    match schema {
        Value::Array(union) => union.iter().flat_map(records).collect(),
        Value::Object(object) if object["type"] == "record" => {
            let nested = fields(schema).iter().flat_map(|field| records(&field["type"]));
            std::iter::once(schema).chain(nested).collect()
        }
        Value::Object(object) => object.get("items").into_iter().flat_map(records).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_file_is_compiled_in_and_every_line_has_its_file() {
    let mut files = BTreeSet::new();
    for topic in std::fs::read_dir(root().join("schemas")).unwrap() {
        let topic = topic.unwrap();
        let name = topic.file_name().into_string().unwrap();
        if topic.file_type().unwrap().is_dir() {
            for file in std::fs::read_dir(topic.path()).unwrap() {
                files.insert(format!("schemas/{name}/{}", file.unwrap().file_name().into_string().unwrap()));
            }
        } else {
            assert_eq!(name, "README.md");
        }
    }
    let lines: Vec<_> = SCHEMAS.iter().map(path_of).collect();
    assert_eq!(files, lines.iter().cloned().collect());
    assert_eq!(files.len(), lines.len(), "no line twice");
}

#[test]
fn every_topic_reads_exactly_the_types_it_has_schemas_for() {
    for topic in TOPICS {
        let of_topic = SCHEMAS.iter().filter(|def| def.topic == topic.name);
        let with_schema: BTreeSet<_> = of_topic.map(|def| def.full_name).collect();
        assert_eq!(with_schema, topic.types.iter().copied().collect(), "{}", topic.name);
    }
    let tested: BTreeSet<_> = KINDS.iter().map(|kind| (kind.topic, kind.full_name)).collect();
    assert_eq!(tested, SCHEMAS.iter().map(|def| (def.topic, def.full_name)).collect(), "each is tested here");
}

#[test]
fn versions_count_from_one_without_a_gap() {
    let mut versions: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for def in SCHEMAS {
        versions.entry((def.topic, def.full_name)).or_default().push(def.version);
    }
    for (name, versions) in versions {
        assert!(versions.iter().copied().eq(1..=u32::try_from(versions.len()).unwrap()), "{name:?} {versions:?}");
    }
}

/// The registry would give both one ID, and an older reader could not tell what it lacks.
#[test]
fn no_two_versions_differ_in_docs_only() {
    fn undocumented(mut value: Value) -> Value {
        match &mut value {
            Value::Object(object) => {
                object.remove("doc");
                object.values_mut().for_each(|inner| *inner = undocumented(inner.take()));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| *item = undocumented(item.take())),
            _ => {}
        }
        value
    }
    let mut found = BTreeMap::new();
    for def in SCHEMAS {
        let twin = found.insert((def.subject(), undocumented(parse(def)).to_string()), def.version);
        assert_eq!(twin, None, "{} says what an older version says", path_of(def));
    }
}

#[test]
fn names_and_subjects_follow_the_topic() {
    for def in SCHEMAS {
        let schema = parse(def);
        let namespace = format!("orderlog.{}", def.topic.split('.').next().unwrap());
        assert_eq!(schema["namespace"], namespace.as_str(), "{}", path_of(def));
        let full_name = format!("{namespace}.{}", schema["name"].as_str().unwrap());
        assert_eq!(full_name, def.full_name);
        assert_eq!(def.subject(), format!("{}-{full_name}", def.topic));
    }
}

#[test]
fn every_record_and_field_is_documented() {
    for def in SCHEMAS {
        for record in records(&parse(def)) {
            let said = |value: &Value| value["doc"].as_str().is_some_and(|doc| doc.len() > 3 && doc.ends_with('.'));
            assert!(said(record), "{}: {}", path_of(def), record["name"]);
            for field in fields(record) {
                assert!(said(field), "{}: {}.{}", path_of(def), record["name"], field["name"]);
            }
        }
    }
}

#[test]
fn what_may_be_absent_is_null_by_default() {
    for def in SCHEMAS {
        for field in records(&parse(def)).into_iter().flat_map(fields) {
            // Without a default the field could never go again (FULL_TRANSITIVE).
            let is_union = field["type"].is_array();
            let default = field.get("default");
            assert!(!is_union || field["type"][0] == "null", "{}: {}", path_of(def), field["name"]);
            assert!(!is_union || default == Some(&Value::Null), "{}: {}", path_of(def), field["name"]);
        }
    }
}

#[test]
fn an_aggregates_id_comes_first() {
    for def in SCHEMAS {
        let schema = parse(def);
        let first = &fields(&schema)[0];
        assert!(["order_id", "product_id"].iter().any(|name| first["name"] == *name), "{}", path_of(def));
        assert!(first["doc"].as_str().unwrap().contains("equal to the record's key"), "{}", path_of(def));
    }
}

/// Compares the keys of a record's JSON with the fields of its schema, all the way down.
fn same_fields(path: &str, schema: &Value, json: &Value, named: &BTreeMap<&str, &Value>) {
    match (schema, json) {
        (Value::Array(union), json) => same_fields(path, &union[1], json, named),
        (Value::String(name), json) if named.contains_key(name.as_str()) => {
            same_fields(path, named[name.as_str()], json, named);
        }
        (Value::Object(object), json) if object["type"] == "array" => {
            let items = json.as_array().expect("an array");
            assert!(!items.is_empty(), "{path} is filled in a full example");
            items.iter().for_each(|item| same_fields(path, &object["items"], item, named));
        }
        (Value::Object(object), json) if object["type"] == "record" => {
            let keys: BTreeSet<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
            let names: BTreeSet<_> = fields(schema).iter().map(|field| field["name"].as_str().unwrap()).collect();
            assert_eq!(keys, names, "{path}");
            for field in fields(schema) {
                let name = field["name"].as_str().unwrap();
                same_fields(&format!("{path}.{name}"), &field["type"], &json[name], named);
            }
        }
        (_, json) => assert!(!json.is_null(), "{path} is filled in a full example"),
    }
}

#[test]
fn structs_and_schemas_have_the_same_fields() {
    let vectors = vectors();
    for vector in vectors.iter().filter(|vector| vector.case == "full" && is_newest(vector.def)) {
        let schema = parse(vector.def);
        let named = records(&schema).into_iter().map(|record| (record["name"].as_str().unwrap(), record)).collect();
        // The JSON is what the struct writes: golden.rs shows it.
        same_fields(&path_of(vector.def), &schema, &vector.json, &named);
    }
}
