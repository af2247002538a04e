//! Pages of a list that only grows: a cursor is the number of the next item. It knows nothing of what is listed.

use std::ops::Range;

use serde::Serialize;

use crate::problem::Problem;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1_000;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: usize,
    pub(crate) limit: usize,
}

impl Window {
    /// From the query's `cursor` and `limit` (1 to 1,000, default 50).
    ///
    /// # Errors
    /// 422 that names the parameter.
    pub(crate) fn parse(cursor: Option<&str>, limit: Option<&str>) -> Result<Self, Problem> {
        let from = match cursor {
            None => 0,
            Some(text) => {
                text.parse().map_err(|_| Problem::invalid("cursor", "is not a `next_cursor` of an earlier page"))?
            }
        };
        let limit = match limit {
            None => LIMIT_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| Problem::invalid("limit", &format!("must be a number from 1 to {LIMIT_MAX}")))?,
        };
        Ok(Self { from, limit })
    }

    /// The items of it that a list of this length has.
    pub(crate) fn range(self, length: usize) -> Range<usize> {
        let start = self.from.min(length);
        start..start.saturating_add(self.limit).min(length)
    }
}

/// `{"items":[…],"next_cursor":null|"…"}`.
#[derive(Debug, Serialize)]
pub(crate) struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// `next` is the number of the first item behind this page, `length` that of all items.
    pub(crate) fn new(items: Vec<T>, next: usize, length: usize) -> Self {
        Self { items, next_cursor: (next < length).then(|| next.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_where_the_list_does() {
        let window = Window::parse(Some("3"), Some("5")).unwrap();
        assert_eq!(window.range(10), 3..8);
        assert_eq!(window.range(4), 3..4);
        assert_eq!(window.range(2), 2..2);
    }

    #[test]
    fn bad_parameters_are_refused() {
        for (cursor, limit) in
            [(Some("x"), None), (Some("-1"), None), (None, Some("0")), (None, Some("1001")), (None, Some(""))]
        {
            assert!(Window::parse(cursor, limit).is_err(), "{cursor:?} {limit:?}");
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        assert_eq!(Page::new(vec![1, 2], 2, 3).next_cursor.as_deref(), Some("2"));
        assert_eq!(Page::new(vec![3], 3, 3).next_cursor, None);
    }
}
