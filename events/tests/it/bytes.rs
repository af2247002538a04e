//! Damaged, foreign and unknown values are errors of the right name, and never a panic.
//!
//! What follows from each error (poison, pause, stop) is engine's and tested there.

use events::codec::{Codec, DecodeError, schema_id};
use events::schema::SCHEMAS;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::golden::{codec, path_of, vectors};
use crate::kinds::{TOPICS, topic};

#[test]
fn a_value_cut_at_any_byte_is_refused() {
    let vectors = vectors();
    let codec = codec(&vectors);
    for vector in &vectors {
        for length in 0..vector.value.len() {
            let result = (topic(vector.def.topic).decode)(&codec, &vector.value[..length]);
            let right = match &result {
                Err(DecodeError::NotAvro) => length < 5,
                Err(DecodeError::Damaged { type_name, .. }) => length >= 5 && *type_name == vector.def.full_name,
                _ => false,
            };
            assert!(right, "{} {} cut to {length} bytes: {result:?}", path_of(vector.def), vector.case);
        }
    }
}

#[test]
fn a_byte_too_many_is_refused() {
    let vectors = vectors();
    let codec = codec(&vectors);
    for vector in &vectors {
        for extra in 0..=u8::MAX {
            let mut value = vector.value.clone();
            value.push(extra);
            let result = (topic(vector.def.topic).decode)(&codec, &value);
            let reason = "1 bytes follow the datum".to_owned();
            assert_eq!(result, Err(DecodeError::Damaged { type_name: vector.def.full_name, reason }));
        }
    }
}

#[test]
fn a_schema_of_another_topic_is_foreign() {
    let vectors = vectors();
    let codec = codec(&vectors);
    for vector in &vectors {
        assert_eq!(codec.topic_of(vector.schema_id), Some(vector.def.topic));
        for topic in TOPICS.iter().filter(|topic| topic.name != vector.def.topic) {
            let result = (topic.decode)(&codec, &vector.value);
            assert_eq!(result, Err(DecodeError::Foreign { type_name: vector.def.full_name }), "on {}", topic.name);
        }
    }
}

#[test]
fn a_schema_nobody_compiled_in_is_unknown() {
    let codec = Codec::numbered();
    for id in [0, 10_000, u32::MAX] {
        let mut value = vec![0];
        value.extend_from_slice(&id.to_be_bytes());
        value.extend_from_slice(&[2, 2, 2]);
        assert_eq!(schema_id(&value), Ok(id));
        assert_eq!(codec.topic_of(id), None);
        for topic in TOPICS {
            assert_eq!((topic.decode)(&codec, &value), Err(DecodeError::UnknownSchema(id)));
        }
    }
}

#[test]
fn bytes_without_the_prefix_are_no_avro() {
    let codec = Codec::numbered();
    // Empty, cut in the prefix, JSON, Avro's container file, a schema GUID's magic byte.
    let strange: [&[u8]; 6] = [b"", b"\0", b"\0\0\0\0", b"{\"order_id\":7}", b"Obj\x01", b"\x01\0\0\0\x01\x02"];
    for bytes in strange {
        assert_eq!(schema_id(bytes), Err(DecodeError::NotAvro));
        for topic in TOPICS {
            assert_eq!((topic.decode)(&codec, bytes), Err(DecodeError::NotAvro), "{bytes:?}");
        }
    }
}

#[test]
fn no_flipped_bit_makes_the_reader_panic() {
    let vectors = vectors();
    let codec = codec(&vectors);
    for vector in &vectors {
        for bit in 0..vector.value.len() * 8 {
            let mut value = vector.value.clone();
            value[bit / 8] ^= 1 << (bit % 8);
            let result = (topic(vector.def.topic).decode)(&codec, &value);
            // A flipped bit may make another legal record; what it may not make is this one.
            let same = result.is_ok_and(|(name, json)| name == vector.def.full_name && json == vector.json);
            assert!(!same, "{} {} with bit {bit} flipped", path_of(vector.def), vector.case);
        }
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let vectors = vectors();
    let codec = codec(&vectors);
    for vector in vectors.iter().filter(|vector| vector.case == "full") {
        let datum = &vector.value[5..];
        // Noise alone seldom gets far into a record, so it also starts behind a true beginning.
        let bytes = (0..=datum.len(), prop::collection::vec(any::<u8>(), 0..80));
        let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&bytes, |(kept, noise)| {
            let mut value = vector.value[..5 + kept].to_vec();
            value.extend_from_slice(&noise);
            match (topic(vector.def.topic).decode)(&codec, &value) {
                Ok(_) | Err(DecodeError::Damaged { .. }) => Ok(()),
                Err(other) => Err(TestCaseError::fail(other.to_string())),
            }
        });
        run.unwrap_or_else(|error| panic!("{}: {error}", path_of(vector.def)));
    }
}

#[test]
fn a_length_that_lies_is_damage_at_worst() {
    let vectors = vectors();
    let codec = codec(&vectors);
    // `i64::MAX`, 2^40 and -1 as Avro writes a long.
    let lies: [&[u8]; 3] =
        [&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40], &[0x01]];
    for vector in &vectors {
        for cut in 5..vector.value.len() {
            for lie in lies {
                let mut value = vector.value[..cut].to_vec();
                value.extend_from_slice(lie);
                let result = (topic(vector.def.topic).decode)(&codec, &value);
                // Where the last field is a number, the lie is that number and true.
                assert!(matches!(result, Ok(_) | Err(DecodeError::Damaged { .. })), "{result:?}");
            }
        }
    }
}

#[test]
fn a_text_of_more_than_4_mib_is_refused_before_it_is_allocated() {
    let codec = Codec::numbered();
    let (_, first) = SCHEMAS.iter().zip(1_u8..).find(|(def, _)| def.full_name == "orderlog.order.PlaceOrder").unwrap();
    // Order 1 and a customer of 2^40 bytes, of which none follows.
    let value = [0, 0, 0, 0, first, 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    let error = (topic("order.commands").decode)(&codec, &value).unwrap_err();
    assert!(error.to_string().contains("allocat"), "{error}");
}
