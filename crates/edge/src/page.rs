//! Lists in pages: the page, and the cursor that leads to the next one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Datelike, Utc};
use gathering_domain::{Pointer, Problems};
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The length of a page when the caller names none.
pub const DEFAULT_LIMIT: usize = 50;

/// The list that a cursor belongs to; a cursor of another list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List(pub u8);

/// The parameters of every list in pages.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The length of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[expect(dead_code, reason = "it is read with the checks, which name what is wrong with it")]
    cursor: Option<String>,
}

/// The parameters of a list that can be narrowed down by nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFilter {}

impl IntoParams for NoFilter {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Vec::new()
    }
}

/// A filter together with the parameters of a page.
#[derive(Debug, Deserialize)]
pub(crate) struct Paged<T> {
    #[serde(flatten)]
    filter: T,
    #[serde(flatten)]
    page: PageQuery,
}

impl<T: IntoParams> IntoParams for Paged<T> {
    fn into_params(parameter_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        [T::into_params(&parameter_in), PageQuery::into_params(&parameter_in)].concat()
    }
}

impl<T> Paged<T> {
    /// The filter, and the page that follows the item with the key `after`.
    pub(crate) fn after(self, list: List, after: Option<Uuid>) -> (T, PageRequest) {
        (self.filter, PageRequest { list, limit: self.page.limit.unwrap_or(DEFAULT_LIMIT), after })
    }
}

/// The page of a list that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    list: List,
    limit: usize,
    after: Option<Uuid>,
}

impl PageRequest {
    /// The length of the page.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// How many rows to look for: one more than the page has tells whether there is a next page.
    pub const fn n_rows(&self) -> usize {
        self.limit + 1
    }

    /// The key of the last item of the page before.
    pub fn after<K: From<Uuid>>(&self) -> Option<K> {
        self.after.map(K::from)
    }

    /// The page of these rows; [`n_rows`](Self::n_rows) of them mean that there is a next page. `key` gives the place of
    /// a row.
    pub fn of<R, T>(&self, mut rows: Vec<R>, key: impl Fn(&R) -> Uuid, view: impl Fn(R) -> T) -> Page<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(key);
        self.until(rows.into_iter().map(view).collect(), next)
    }

    /// The page with these items; `next` is the key of the last one if there is a next page.
    pub fn until<T>(&self, items: Vec<T>, next: Option<Uuid>) -> Page<T> {
        Page { items, next_cursor: next.map(|key| encode(self.list, key)) }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Leads to the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// The cursor that continues after the item with this key.
pub fn encode(list: List, key: Uuid) -> String {
    let mut bytes = [0; 17];
    bytes[0] = list.0;
    bytes[1..].copy_from_slice(key.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(list: List, text: &str) -> Option<Uuid> {
    let bytes: [u8; 17] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (kind, key) = bytes.split_first()?;
    (*kind == list.0).then(|| Uuid::from_slice(key).ok()).flatten()
}

/// The key of the last item of the page before, out of the query.
pub(crate) fn cursor(list: List, text: Option<&str>, problems: &mut Problems) -> Option<Uuid> {
    let key = decode(list, text?);
    if key.is_none() {
        problems.add(Pointer::root().join("cursor"), "must be the `next_cursor` of a page of this list");
    }
    key
}

/// A time in RFC 3339.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let read = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc));
    // The year may change in UTC, and RFC 3339 cannot write a year with five digits.
    read.ok().filter(|time| (0..=9999).contains(&time.year()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: List = List(2);
    const PIPELINES: List = List(1);

    #[test]
    fn a_cursor_leads_back_to_its_place_in_its_own_list_only() {
        let key = Uuid::now_v7();
        let cursor = encode(RUNS, key);
        assert_eq!(decode(RUNS, &cursor), Some(key));
        assert_eq!(decode(PIPELINES, &cursor), None);
    }

    #[test]
    fn what_is_no_cursor_is_named() {
        for text in ["", "x", "AAAA", "ä", &"A".repeat(10_000)] {
            let mut problems = Problems::new();
            assert_eq!(cursor(RUNS, Some(text), &mut problems), None);
            assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/cursor", "{text:.20}");
        }
    }

    #[test]
    fn a_time_is_rfc_3339_and_read_as_utc() {
        let read = parse_time("2026-11-23T08:30:00+02:00");
        assert_eq!(read.unwrap().to_rfc3339(), "2026-11-23T06:30:00+00:00");
        for text in ["", "2026-11-23", "2026-11-23T08:30:00", "yesterday", "9999-12-31T23:59:59-01:00"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_page_has_a_cursor_exactly_when_there_is_more() {
        let rows: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
        let request = |limit| PageRequest { list: RUNS, limit, after: None };
        let page = request(2).of(rows.clone(), |row| *row, |row| row);
        assert_eq!(page.items, rows[..2]);
        assert_eq!(page.next_cursor, Some(encode(RUNS, rows[1])));
        let page = request(3).of(rows.clone(), |row| *row, |row| row);
        assert_eq!((page.items.len(), page.next_cursor), (3, None));
    }
}
