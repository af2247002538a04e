//! Query parameters, read as strictly as bodies, and lists that are read page by page.
//!
//! A cursor is opaque to clients: it holds the sort key of the last item they saw, so that a page costs the same
//! wherever it begins. It is no secret and grants nothing.

use std::cell::RefCell;
use std::fmt::Display;
use std::future::{Ready, ready};
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::problem::{FieldError, Problem};

/// Items of a page when the client names no limit.
pub const LIMIT_DEFAULT: i64 = 50;
/// The largest page.
pub const LIMIT_MAX: i64 = 200;

/// A list as clients get it.
#[derive(Debug, Clone, Serialize)]
pub struct Listing<T> {
    /// This page.
    pub items: Vec<T>,
    /// For the next page, or null on the last.
    pub next_cursor: Option<String>,
}

impl<T> Listing<T> {
    /// Makes a page of what was read: one row more than the limit was asked for ([`Page::rows`]), which tells whether
    /// another page follows.
    pub fn of<K: Display>(mut items: Vec<T>, page: &Page<K>, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| more);
        let next_cursor = last.map(|last| BASE64_URL_SAFE_NO_PAD.encode(key(last).to_string()));
        Self { items, next_cursor }
    }

    /// The same page with each item as clients see it.
    pub fn map<U>(self, show: impl FnMut(T) -> U) -> Listing<U> {
        Listing { items: self.items.into_iter().map(show).collect(), next_cursor: self.next_cursor }
    }
}

/// Which part of a list a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// Items wanted, 1 to 200.
    pub limit: i64,
    /// Sort key of the last item before this page.
    pub after: Option<K>,
}

impl<K> Page<K> {
    /// Rows to read: one more than wanted.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.limit + 1
    }
}

/// Query parameters of a route: reads its own.
pub trait Query: Sized {
    /// Reads the parameters. Ask for every one before the first `?`; `None` only after a mistake was reported.
    fn read(params: &Params) -> Option<Self>;
}

/// Query parameters that are being asked for.
#[derive(Debug)]
pub struct Params {
    pairs: Vec<(String, String)>,
    asked: RefCell<Vec<&'static str>>,
    errors: RefCell<Vec<FieldError>>,
}

impl Params {
    fn error(&self, name: &str, detail: impl Display) {
        self.errors.borrow_mut().push(FieldError {
            pointer: format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            detail: detail.to_string(),
        });
    }

    fn find(&self, name: &'static str) -> Option<&str> {
        self.asked.borrow_mut().push(name);
        let pair = self.pairs.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    }

    /// `Some(None)` when the parameter is missing, else what `parse` makes of it; its error is the report.
    pub fn optional<T, E: Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.find(name).map(parse) {
            None => Some(None),
            Some(Ok(value)) => Some(Some(value)),
            Some(Err(error)) => {
                self.error(name, error);
                None
            }
        }
    }

    /// A parameter that must be there.
    pub fn required<T, E: Display>(&self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let value = self.optional(name, parse)?;
        if value.is_none() {
            self.error(name, "is missing");
        }
        value
    }

    /// `limit` and `cursor`.
    pub fn page<K: FromStr>(&self) -> Option<Page<K>> {
        let limit = self.optional("limit", |text| {
            let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit
                .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| format!("must be an integer from 1 to {LIMIT_MAX}"))
        });
        let after = self.optional("cursor", |text| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
            let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
            key.ok_or("must be a next_cursor of this list")
        });
        Some(Page { limit: limit?.unwrap_or(LIMIT_DEFAULT), after: after? })
    }

    fn finish(self) -> Vec<FieldError> {
        for (index, (key, _)) in self.pairs.iter().enumerate() {
            if self.pairs[..index].iter().any(|(earlier, _)| earlier == key) {
                self.error(key, "is there more than once");
            } else if !self.asked.borrow().contains(&key.as_str()) {
                self.error(key, "is not a known parameter");
            }
        }
        self.errors.into_inner()
    }
}

/// Reads a query string.
///
/// # Errors
/// 422 `VALIDATION` with every mistake; an unknown or doubled parameter is one.
pub fn parse<T: Query>(query: &str) -> Result<T, Problem> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query);
    let pairs = pairs.map_err(|_| Problem::unprocessable("VALIDATION", "The query string is malformed."))?;
    let params = Params { pairs: pairs.into_inner(), asked: RefCell::default(), errors: RefCell::default() };
    let value = T::read(&params);
    let errors = params.finish();
    match value {
        Some(value) if errors.is_empty() => Ok(value),
        _ => Err(Problem::validation(errors)),
    }
}

/// The extractor of query parameters.
#[derive(Debug)]
pub struct Asked<T>(pub T);

impl<T: Query> FromRequest for Asked<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse(request.query_string()).map(Self))
    }
}

/// A list that is read page by page and has no other parameter.
impl<K: FromStr> Query for Page<K> {
    fn read(params: &Params) -> Option<Self> {
        params.page()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<Page<i64>, Vec<String>> {
        parse(query).map_err(|problem| problem.errors().iter().map(|error| error.pointer.clone()).collect())
    }

    #[test]
    fn a_page_leads_to_the_next_one() {
        let first = page("limit=2").unwrap();
        assert_eq!((first.rows(), first.after), (3, None));
        let listing = Listing::of(vec![5, 7, 9], &first, |item| *item);
        assert_eq!(listing.items, [5, 7]);
        let cursor = listing.next_cursor.unwrap();
        assert_eq!(page(&format!("cursor={cursor}")).unwrap(), Page { limit: 50, after: Some(7) });
        assert_eq!(Listing::of(vec![5, 7], &first, |item| *item).next_cursor, None);
    }

    #[rstest::rstest]
    #[case("limit=0", &["/limit"])]
    #[case("limit=201", &["/limit"])]
    #[case("limit=+5", &["/limit"])]
    #[case("limit=", &["/limit"])]
    #[case("limit=x&cursor=!", &["/limit", "/cursor"])]
    #[case("cursor=bm9uZQ", &["/cursor"])]
    #[case("limit=1&limit=1", &["/limit"])]
    #[case("page=2&a/b=1", &["/page", "/a~1b"])]
    fn a_wrong_parameter_is_named(#[case] query: &str, #[case] pointers: &[&str]) {
        assert_eq!(page(query).unwrap_err(), pointers);
    }
}
