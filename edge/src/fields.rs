//! Reads a JSON body field by field and collects everything that is wrong, each with its RFC 6901 pointer.
//!
//! A type says in [`Body::read`] which fields it has; whatever it did not ask for is an unknown field. It is read rather
//! than derived because a derived deserializer stops at the first mistake and cannot tell all of them. Nothing here
//! knows HTTP; [`crate::json`] is the extractor.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::problem::{FieldError, Problem};

/// Mistakes reported at most; a body with more is told the first ones.
const ERRORS_MAX: usize = 100;

/// A request body: reads its own fields.
pub trait Body: Sized {
    /// Reads the body. Ask for every field before the first `?`, so that every mistake is found; `None` only after a
    /// mistake was reported.
    fn read(body: &Object<'_>) -> Option<Self>;
}

/// Parses a body.
///
/// # Errors
/// 400 `NOT_JSON` when the bytes are no JSON text; 422 `VALIDATION` with every mistake that was found inside.
pub fn parse<T: Body>(bytes: &[u8]) -> Result<T, Problem> {
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Problem::bad_request("NOT_JSON", format!("The body is not JSON (line {line}, column {column})."))
    })?;
    let checks = Checks::default();
    let root = Field { pointer: String::new(), raw: Some(raw), checks: &checks };
    let value = root.object(T::read);
    let errors = checks.0.into_inner();
    match value {
        Some(value) if errors.is_empty() => Ok(value),
        _ => Err(Problem::validation(errors)),
    }
}

/// The mistakes found so far.
#[derive(Debug, Default)]
struct Checks(RefCell<Vec<FieldError>>);

impl Checks {
    fn report(&self, pointer: &str, detail: impl Display) {
        let mut errors = self.0.borrow_mut();
        if errors.len() < ERRORS_MAX {
            errors.push(FieldError { pointer: pointer.to_owned(), detail: detail.to_string() });
        }
    }
}

/// A JSON object whose fields are being asked for.
#[derive(Debug)]
pub struct Object<'a> {
    pointer: String,
    members: Vec<(String, &'a RawValue)>,
    asked: RefCell<Vec<&'static str>>,
    checks: &'a Checks,
}

impl<'a> Object<'a> {
    /// A field that may or may not be there. Asking for it makes it a known one.
    pub fn field(&self, name: &'static str) -> Field<'a> {
        self.asked.borrow_mut().push(name);
        let member = self.members.iter().find(|(key, _)| key == name);
        Field { pointer: join(&self.pointer, name), raw: member.map(|(_, raw)| *raw), checks: self.checks }
    }

    /// Reports a mistake below this object, such as `error("/lines/3/product_id", "is in the order twice")`; an empty
    /// path means the object itself.
    pub fn error(&self, path: &str, detail: impl Display) {
        self.checks.report(&format!("{}{path}", self.pointer), detail);
    }

    /// Reports what nobody asked for and what is there twice.
    fn finish(&self) {
        let asked = self.asked.borrow();
        for (index, (key, _)) in self.members.iter().enumerate() {
            if self.members[..index].iter().any(|(earlier, _)| earlier == key) {
                self.checks.report(&join(&self.pointer, key), "is there more than once");
            } else if !asked.contains(&key.as_str()) {
                self.checks.report(&join(&self.pointer, key), "is not a known field");
            }
        }
    }
}

/// A field, an item of a list, or the whole body.
#[derive(Debug)]
pub struct Field<'a> {
    pointer: String,
    raw: Option<&'a RawValue>,
    checks: &'a Checks,
}

impl<'a> Field<'a> {
    /// Reports a mistake in this field.
    pub fn error(&self, detail: impl Display) {
        self.checks.report(&self.pointer, detail);
    }

    /// `Some(None)` when the field is missing or null, else what `read` makes of it.
    pub fn optional<T>(self, read: impl FnOnce(Self) -> Option<T>) -> Option<Option<T>> {
        match self.raw.map(RawValue::get) {
            None | Some("null") => Some(None),
            Some(_) => read(self).map(Some),
        }
    }

    /// The JSON text, or a report that the field is missing.
    fn present(&self) -> Option<&'a RawValue> {
        if self.raw.is_none() {
            self.error("is missing");
        }
        self.raw
    }

    /// The JSON value as `T`, or a report of what it must be.
    fn typed<T: Deserialize<'a>>(&self, expected: impl Display) -> Option<T> {
        let value = serde_json::from_str(self.present()?.get()).ok();
        if value.is_none() {
            self.error(expected);
        }
        value
    }

    /// A text of so many characters.
    pub fn text(self, chars_min: usize, chars_max: usize) -> Option<String> {
        let text: String = self.typed("must be a string")?;
        if !(chars_min..=chars_max).contains(&text.chars().count()) {
            self.error(format_args!("must have {chars_min} to {chars_max} characters"));
            return None;
        }
        if text.contains('\0') {
            // Postgres' text cannot hold it.
            self.error("must not contain the character U+0000");
            return None;
        }
        Some(text)
    }

    /// A string that `T` parses: an ID, a code, a time. The report is `T`'s own sentence.
    pub fn parsed<T: FromStr<Err: Display>>(self) -> Option<T> {
        self.parsed_by(T::from_str)
    }

    /// A string that `parse` takes; its error is the report.
    pub fn parsed_by<T, E: Display>(self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text: String = self.typed("must be a string")?;
        parse(&text).map_err(|error| self.error(error)).ok()
    }

    /// A string that `parse` takes, where its error tells less than what the field must be.
    pub fn parsed_as<T, E>(self, parse: impl FnOnce(&str) -> Result<T, E>, expected: &str) -> Option<T> {
        self.parsed_by(|text| parse(text).map_err(|_| expected))
    }

    /// One of these codes; the report lists them all.
    pub fn code<T: Copy>(self, codes: &[T], text_of: fn(T) -> &'static str) -> Option<T> {
        self.parsed_by(|text| {
            let known = codes.iter().copied().find(|code| text_of(*code) == text);
            known.ok_or_else(|| {
                let texts: Vec<_> = codes.iter().copied().map(text_of).collect();
                format!("must be one of {}", texts.join(", "))
            })
        })
    }

    /// An integer within these bounds, both included; written without fraction or exponent.
    pub fn integer(self, min: i64, max: i64) -> Option<i64> {
        let kind = if min == 1 { "must be a positive integer" } else { "must be an integer" };
        let text = self.present()?.get();
        let is_integer = text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
        if !is_integer {
            self.error(kind);
            return None;
        }
        // Only its size can be wrong now: what leaves 64 bits is beyond any bound.
        let saturated = if text.starts_with('-') { i64::MIN } else { i64::MAX };
        let number = text.parse().unwrap_or(saturated);
        if number < min {
            if min == 1 {
                self.error(kind);
            } else {
                self.error(format_args!("must be at least {min}"));
            }
            return None;
        }
        if number > max || text.parse::<i64>().is_err() {
            self.error(format_args!("must be at most {max}"));
            return None;
        }
        Some(number)
    }

    /// A JSON boolean.
    pub fn boolean(self) -> Option<bool> {
        self.typed("must be true or false")
    }

    /// An object; its unknown and doubled fields are reported after `read`.
    pub fn object<T>(self, read: impl FnOnce(&Object<'a>) -> Option<T>) -> Option<T> {
        let Members(members) = self.typed("must be an object")?;
        let object = Object { pointer: self.pointer, members, asked: RefCell::default(), checks: self.checks };
        let value = read(&object);
        object.finish();
        value
    }

    /// A list of so many items, each read by `read`. `None` when any item is wrong, after all were read.
    pub fn list<T>(
        self,
        items_min: usize,
        items_max: usize,
        mut read: impl FnMut(Field<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items: Vec<&RawValue> = self.typed("must be a list")?;
        if !(items_min..=items_max).contains(&items.len()) {
            self.error(format_args!("must have {items_min} to {items_max} items"));
            return None;
        }
        let fields = items.into_iter().enumerate().map(|(index, raw)| Field {
            pointer: format!("{}/{index}", self.pointer),
            raw: Some(raw),
            checks: self.checks,
        });
        // Collected first: stopping at the first wrong item would hide the others.
        let values: Vec<Option<T>> = fields.map(&mut read).collect();
        values.into_iter().collect()
    }
}

/// `/lines/0` and `quantity` make `/lines/0/quantity`; `~` and `/` in a name are escaped (RFC 6901 §3).
fn join(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The members of an object as they stand there, repeats included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Basket {
        lines: Vec<(String, i64)>,
        note: Option<String>,
    }

    impl Body for Basket {
        fn read(body: &Object<'_>) -> Option<Self> {
            let lines = body.field("lines").list(1, 3, |line| {
                line.object(|line| {
                    let name = line.field("name").text(1, 5);
                    let quantity = line.field("quantity").integer(1, 1_000_000);
                    Some((name?, quantity?))
                })
            });
            let note = body.field("note").optional(|note| note.text(0, 10));
            Some(Self { lines: lines?, note: note? })
        }
    }

    fn errors(body: &str) -> Vec<String> {
        let problem = parse::<Basket>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.status(), 422, "{body}");
        let errors = problem.errors().iter();
        errors.map(|error| format!("{} {}", error.pointer, error.detail)).collect()
    }

    #[test]
    fn a_right_body_is_read() {
        let basket: Basket = parse(br#" {"note":null,"lines":[{"quantity":2,"name":"tea"}]} "#).unwrap();
        assert_eq!(basket.lines, [("tea".to_owned(), 2)]);
        assert_eq!(basket.note, None);
    }

    #[test]
    fn every_mistake_is_named() {
        let body = r#"{"lines":[{"name":7,"quantity":0},{"quantity":"2","name":"tea","price":1},{"name":"","name":"x"}],
            "note":"too long a note","a/b~c":1}"#;
        assert_eq!(
            errors(body),
            [
                "/lines/0/name must be a string",
                "/lines/0/quantity must be a positive integer",
                "/lines/1/quantity must be a positive integer",
                "/lines/1/price is not a known field",
                "/lines/2/name must have 1 to 5 characters",
                "/lines/2/quantity is missing",
                "/lines/2/name is there more than once",
                "/note must have 0 to 10 characters",
                "/a~1b~0c is not a known field",
            ]
        );
    }

    #[derive(Debug)]
    struct Mood;

    impl Body for Mood {
        fn read(body: &Object<'_>) -> Option<Self> {
            let codes: [&'static str; 2] = ["GOOD", "BAD"];
            let mood = body.field("mood").code(&codes, |code| code);
            let size = body.field("size").parsed_as(str::parse::<u8>, "must be a size");
            mood.and(size).map(|_| Self)
        }
    }

    #[test]
    fn a_code_that_is_none_is_told_all_of_them() {
        let told = |body: &str| {
            let problem = parse::<Mood>(body.as_bytes()).unwrap_err();
            problem.errors().iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect::<Vec<_>>()
        };
        assert_eq!(told(r#"{"mood":"good","size":"x"}"#), ["/mood must be one of GOOD, BAD", "/size must be a size"]);
        assert!(parse::<Mood>(br#"{"mood":"BAD","size":"7"}"#).is_ok());
    }

    #[rstest::rstest]
    #[case("1000001", "must be at most 1000000")]
    #[case("99999999999999999999", "must be at most 1000000")]
    #[case("-99999999999999999999", "must be a positive integer")]
    #[case("1e400", "must be a positive integer")]
    #[case("1.0", "must be a positive integer")]
    #[case("-0", "must be a positive integer")]
    #[case("true", "must be a positive integer")]
    #[case("null", "must be a positive integer")]
    #[case("[1]", "must be a positive integer")]
    fn a_quantity_has_one_form(#[case] quantity: &str, #[case] detail: &str) {
        let body = format!(r#"{{"lines":[{{"name":"x","quantity":{quantity}}}]}}"#);
        assert_eq!(errors(&body), [format!("/lines/0/quantity {detail}")]);
    }

    #[rstest::rstest]
    #[case("[]", " must be an object")]
    #[case("null", " must be an object")]
    #[case("\"x\"", " must be an object")]
    #[case("{}", "/lines is missing")]
    #[case(r#"{"lines":[]}"#, "/lines must have 1 to 3 items")]
    #[case(r#"{"lines":{}}"#, "/lines must be a list")]
    #[case(r#"{"lines":[{"name":"\ud800","quantity":1}]}"#, "/lines/0/name must be a string")]
    #[case(r#"{"lines":[{"name":"a\u0000","quantity":1}]}"#, "/lines/0/name must not contain the character U+0000")]
    fn the_pointer_names_the_field(#[case] body: &str, #[case] error: &str) {
        assert_eq!(errors(body), [error]);
    }

    #[rstest::rstest]
    #[case("")]
    #[case("{")]
    #[case("{} {}")]
    #[case("{'lines':1}")]
    #[case("NaN")]
    #[case("\u{feff}{}")]
    fn what_is_not_json_is_another_problem(#[case] body: &str) {
        let problem = parse::<Basket>(body.as_bytes()).unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (400, "NOT_JSON"));
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!(r#"{{"lines":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(errors(&deep), ["/lines/0 must be an object"]);
        let unknown =
            format!(r#"{{"lines":[{{"name":"x","quantity":1}}],"x":{}1{}}}"#, "[".repeat(9_000), "]".repeat(9_000));
        assert_eq!(errors(&unknown), ["/x is not a known field"]);
    }
}
