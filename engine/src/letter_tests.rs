//! Letters: what is written reads back, and fits its topic.

use events::envelope::{self, Headers};
use events::time::Timestamp;

use crate::kafka::INPUT_BYTES_MAX;
use crate::letter::*;
use crate::record::{OutRecord, Record};

fn record() -> Record {
    Record {
        topic: "order.commands".into(),
        partition: 3,
        offset: 42,
        timestamp: Timestamp(0),
        key: Some(b"7".to_vec()),
        value: Some(b"garbage".to_vec()),
        headers: Headers::from_iter([("ce_id", &b"9"[..]), ("x", &[0xff])]),
    }
}

fn flaw() -> Flaw {
    Flaw { class: Class::Poison, code: "NOT_AVRO".into(), message: "no".to_owned() }
}

fn die(record: &Record) -> OutRecord {
    let scribe = Scribe { service: "order-svc", instance: "a", now: Timestamp(1) };
    let flaw = flaw();
    let letter = Letter {
        step: Step::Died,
        record,
        source_sequence: None,
        effect: None,
        flaw: &flaw,
        attempts: 1,
        first_at: None,
        act: None,
    };
    write(scribe, 5, 6, &letter)
}

#[test]
fn a_letter_reads_back() {
    let original = Record { timestamp: Timestamp(1_767_225_600_123), ..record() };
    let scribe = Scribe { service: "order-svc", instance: "a", now: Timestamp(9_000) };
    for step in Step::ALL {
        for value in [Some(b"x".to_vec()), None] {
            let original = Record { value, ..original.clone() };
            let letter = Letter {
                step,
                record: &original,
                source_sequence: Some(4),
                effect: None,
                flaw: &flaw(),
                attempts: 3,
                first_at: Some(Timestamp(7_000)),
                act: None,
            };
            let out = write(scribe, 5, 6, &letter);
            let told = read(&out.headers, out.key.as_ref(), out.value.as_ref()).unwrap();
            let expected = Told {
                step,
                record: original,
                source_sequence: Some(4),
                effect: None,
                flaw: flaw(),
                attempts: 3,
                first_at: Timestamp(7_000),
                last_at: Timestamp(9_000),
            };
            assert_eq!(told, expected);
        }
    }
}

#[test]
fn a_letter_reads_back_whatever_the_date_of_its_record() {
    for timestamp in [i64::MAX, i64::MIN, 253_402_300_800_000].map(Timestamp) {
        let letter = die(&Record { timestamp, ..record() });
        assert_eq!(read(&letter.headers, None, None).unwrap().record.timestamp, Timestamp(0));
    }
}

#[test]
fn what_is_no_letter_is_not_read() {
    let letter = die(&record());
    for missing in ["ce_type", "ce_cause", "failure-class", "failure-attempts", "failure-last-at"] {
        let headers = letter.headers.iter().filter(|(name, _)| *name != missing);
        assert_eq!(read(&headers.collect(), None, None), None, "{missing}");
    }
}

#[test]
fn bytes_and_headers_are_kept() {
    let letter = die(&record());
    assert_eq!(letter.value.as_deref(), Some(b"garbage".as_slice()));
    assert_eq!(letter.key.as_deref(), Some(b"7".as_slice()));
    let text = |name| envelope::text(&letter.headers, name);
    assert_eq!(text("original-ce_id"), Some("9"));
    assert_eq!(text("failure-code"), Some("NOT_AVRO"));
    assert_eq!(text("ce_cause"), Some("order.commands/3/42/"));
    assert_eq!(text("ce_sequence"), Some("0000000000000000006"));
    assert_eq!(letter.headers.get("original-x"), Some(&[0xff][..]));
    assert_eq!(text("content-type"), None);
}

#[test]
fn a_null_value_stays_null_and_says_so() {
    let letter = die(&Record { value: None, ..record() });
    assert_eq!(letter.value, None);
    assert_eq!(envelope::text(&letter.headers, "original-null"), Some("true"));
}

#[test]
fn a_letter_is_never_larger_than_its_topic_takes() {
    let headers = Headers::from_iter([("big", vec![b'x'; 31_000])]);
    let huge = Record { headers, value: Some(vec![7; 3_000_000]), key: Some(vec![b'9'; 100_000]), ..record() };
    let letter = die(&huge);
    assert!(letter.bytes() < crate::kafka::RECORD_BYTES_MAX, "{}", letter.bytes());
    assert_eq!(letter.value.as_ref().map(Vec::len), Some(INPUT_BYTES_MAX));
    assert_eq!(envelope::text(&letter.headers, "original-value-bytes"), Some("3000000"));
}

#[test]
fn headers_are_bounded() {
    let headers = Headers::from_iter([("big", vec![b'x'; 40_000])]);
    let letter = die(&Record { headers, ..record() });
    assert_eq!(envelope::text(&letter.headers, "original-headers-cut"), Some("true"));
}

#[test]
fn the_letter_of_an_effect_holds_the_event_that_asked_for_it() {
    let headers = Headers::from_iter([("ce_id", "9"), ("ce_sequence", "0000000000000000004")]);
    let event = Record { topic: "payment.events".into(), headers, ..record() };
    let flaw = Flaw { class: Class::Effect, code: "GATEWAY_ERROR".into(), message: "500".to_owned() };
    let scribe = Scribe { service: "payment-svc", instance: "a", now: Timestamp(9_000) };
    let letter = Letter {
        step: Step::Died,
        record: &event,
        source_sequence: Some(4),
        effect: Some("charge"),
        flaw: &flaw,
        attempts: 8,
        first_at: Some(Timestamp(7_000)),
        act: None,
    };
    let out = write(scribe, 5, 6, &letter);
    let text = |name| envelope::text(&out.headers, name);
    assert_eq!((text("ce_cause"), text("ce_causationid")), (Some("effect"), Some("9")));
    assert_eq!((text("failure-effect"), text("failure-class")), (Some("charge"), Some("effect")));
    assert_eq!((text("failure-topic"), text("failure-offset")), (Some("payment.events"), Some("42")));
    let told = read(&out.headers, out.key.as_ref(), out.value.as_ref()).unwrap();
    assert_eq!((told.record, told.source_sequence, told.effect.as_deref()), (event, Some(4), Some("charge")));
    let nameless = out.headers.iter().filter(|(name, _)| *name != "failure-effect");
    assert_eq!(read(&nameless.collect(), None, None), None);
}
