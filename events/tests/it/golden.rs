//! The golden vectors: bytes that fastavro, another implementation of Avro, wrote from the schemas.
//!
//! `events/tests/golden/README.md` says how they came to be. They are never edited: what was written stays readable.

use std::path::{Path, PathBuf};

use events::codec::Codec;
use events::schema::{SCHEMAS, SchemaDef};
use serde_json::Value;

use crate::kinds::{kind, topic};

/// One record with its bytes.
pub(crate) struct Vector {
    pub(crate) def: &'static SchemaDef,
    pub(crate) schema_id: u32,
    pub(crate) case: String,
    pub(crate) json: Value,
    pub(crate) value: Vec<u8>,
}

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where the tree keeps a schema.
pub(crate) fn path_of(def: &SchemaDef) -> String {
    let name = def.full_name.rsplit('.').next().expect("a full name is not empty");
    format!("schemas/{}/{name}.v{}.avsc", def.topic, def.version)
}

/// Whether this version of a type is the one that is written.
pub(crate) fn is_newest(def: &SchemaDef) -> bool {
    let same = |other: &&SchemaDef| (other.topic, other.full_name) == (def.topic, def.full_name);
    SCHEMAS.iter().filter(same).all(|other| other.version <= def.version)
}

/// All vectors, topic by topic.
pub(crate) fn vectors() -> Vec<Vector> {
    let folder = root().join("events/tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files.iter().flat_map(|path| file(path)).collect()
}

fn file(path: &Path) -> Vec<Vector> {
    let text = std::fs::read_to_string(path).unwrap();
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    entries.into_iter().map(vector).collect()
}

fn vector(entry: Value) -> Vector {
    let text = |field: &str| entry[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {entry}"));
    let def = SCHEMAS.iter().find(|def| path_of(def) == text("schema")).expect("a schema of SCHEMAS");
    assert_eq!(def.full_name, text("type"));
    Vector {
        def,
        schema_id: entry["schema_id"].as_u64().unwrap().try_into().unwrap(),
        case: text("case").to_owned(),
        json: entry["json"].clone(),
        value: hex::decode(text("hex")).unwrap(),
    }
}

/// A codec with the schema IDs of the vectors, which stay when [`SCHEMAS`] grows.
pub(crate) fn codec(vectors: &[Vector]) -> Codec {
    let ids: Vec<_> = vectors.iter().map(|vector| (vector.def, vector.schema_id)).collect();
    Codec::new(&ids)
}

#[test]
fn every_version_of_every_type_has_a_full_and_a_minimal_vector() {
    let vectors = vectors();
    for def in SCHEMAS {
        let of_def: Vec<_> = vectors.iter().filter(|vector| vector.def == def).collect();
        for case in ["full", "minimal"] {
            let found = of_def.iter().filter(|vector| vector.case == case).count();
            assert_eq!(found, 1, "{} has {found} vectors `{case}`", path_of(def));
        }
        let id = of_def[0].schema_id;
        assert!(vectors.iter().all(|other| (other.def == def) == (other.schema_id == id)), "{id} is one schema's");
    }
}

#[test]
fn fastavros_bytes_read_as_the_values_they_were_made_of() {
    let vectors = vectors();
    let codec = codec(&vectors);
    for vector in &vectors {
        let (name, mut json) = (topic(vector.def.topic).decode)(&codec, &vector.value).unwrap();
        if !is_newest(vector.def) {
            // A field that came later has its default and is not in the vector.
            json.as_object_mut().unwrap().retain(|field, _| vector.json.get(field).is_some());
        }
        assert_eq!((name, &json), (vector.def.full_name, &vector.json), "{} {}", path_of(vector.def), vector.case);
    }
}

#[test]
fn our_bytes_are_fastavros_bytes() {
    let vectors = vectors();
    let codec = codec(&vectors);
    // Only the newest version of a type is written.
    for vector in vectors.iter().filter(|vector| is_newest(vector.def)) {
        let encode = kind(vector.def.topic, vector.def.full_name).encode;
        let written = encode(&codec, &vector.json).map(hex::encode);
        assert_eq!(written, Ok(hex::encode(&vector.value)), "{} {}", path_of(vector.def), vector.case);
    }
}
