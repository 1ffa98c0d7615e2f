//! Query strings, checked against the documented parameters: an unknown parameter is refused, as an unknown field of a
//! body is.

use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use gathering_domain::{Pointer, Problems};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::IntoParams;

use crate::input::{self, Compiled};
use crate::page::{self, List, PageRequest, Paged};
use crate::problem::ProblemDetails;

/// The parameters of a query, not yet read: a handler first decides whether the caller may ask.
pub struct Query<T> {
    text: String,
    parameters: PhantomData<T>,
}

impl<T: DeserializeOwned + IntoParams + 'static> Query<T> {
    /// The parameters.
    ///
    /// # Errors
    /// 422 with every problem: unknown parameters, those given twice, those that are not what the document says.
    pub fn read(self) -> Result<T, ProblemDetails> {
        read(&self.text, |_, _| {})
    }

    /// The parameters of a request for a page of `list`, and the page: `limit` and `cursor` are known beside those of
    /// `T`.
    ///
    /// # Errors
    /// As [`Query::read`]; 422 also for a cursor of another list.
    pub fn read_page(self, list: List) -> Result<(T, PageRequest), ProblemDetails> {
        let mut after = None;
        let paged: Paged<T> = read(&self.text, |parameters, problems| {
            after = page::cursor(list, parameters.get("cursor").and_then(Value::as_str), problems);
        })?;
        Ok(paged.after(list, after))
    }
}

fn read<T: DeserializeOwned + IntoParams + 'static>(
    text: &str,
    judge: impl FnOnce(&Map<String, Value>, &mut Problems),
) -> Result<T, ProblemDetails> {
    let schema = Compiled::of_query::<T>()?;
    let pairs = web::Query::<Vec<(String, String)>>::from_query(text);
    let pairs =
        pairs.map_err(|error| ProblemDetails::invalid(Problems::one(Pointer::root(), error.to_string())))?;
    let (mut parameters, mut repeated) = (Map::new(), Problems::new());
    for (name, text) in pairs.into_inner() {
        let value = schema.value_of_parameter(&name, text);
        if parameters.insert(name.clone(), value).is_some() {
            repeated.add(Pointer::root().join(name), "is given twice");
        }
    }
    input::read_checked(Value::Object(parameters), &schema, |parameters, problems| {
        problems.extend(repeated);
        judge(parameters, problems);
    })
}

impl<T> FromRequest for Query<T> {
    type Error = ProblemDetails;
    type Future = Ready<Result<Self, ProblemDetails>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(Ok(Self { text: request.query_string().to_owned(), parameters: PhantomData }))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;
    use crate::page::NoFilter;

    #[derive(Debug, Deserialize, IntoParams)]
    #[serde(deny_unknown_fields)]
    #[into_params(parameter_in = Query)]
    struct Parameters {
        state: Option<String>,
        #[param(minimum = 1, maximum = 200)]
        limit: Option<usize>,
        recursive: Option<bool>,
        id: Option<Uuid>,
    }

    fn read(text: &str) -> Result<Parameters, Vec<String>> {
        let query = Query { text: text.to_owned(), parameters: PhantomData };
        query.read().map_err(|problem| {
            assert_eq!(problem.status(), 422);
            problem.errors.into_iter().map(|error| format!("{}: {}", error.pointer, error.message)).collect()
        })
    }

    #[test]
    fn parameters_are_typed() {
        let read = read("state=a&limit=7&recursive=true&id=0192f0c8-0000-7000-8000-000000000000").unwrap();
        assert_eq!((read.state.as_deref(), read.limit, read.recursive), (Some("a"), Some(7), Some(true)));
        assert!(read.id.is_some());
    }

    #[test]
    fn every_wrong_parameter_is_named_at_once() {
        assert_eq!(
            read("stat=x&limit=201&recursive=yes&id=7&state=a&state=b").unwrap_err(),
            [
                "/id: must be a UUID",
                "/limit: must be a whole number from 1 to 200",
                "/recursive: must be true or false",
                "/stat: is unknown: the fields are state, limit, recursive, id",
                "/state: is given twice",
            ]
        );
        for text in ["limit=", "limit=x", "limit=0", "limit=1.5", "limit=-1", "limit=99999999999999999999"] {
            assert_eq!(read(text).unwrap_err(), ["/limit: must be a whole number from 1 to 200"], "{text}");
        }
    }

    #[derive(Debug, Deserialize, IntoParams)]
    #[serde(deny_unknown_fields)]
    #[into_params(parameter_in = Query)]
    struct Filter {
        id: Option<Uuid>,
        at: Option<chrono::DateTime<chrono::Utc>>,
        depth: Option<i64>,
    }

    #[test]
    fn a_page_is_asked_for_beside_the_parameters_of_its_list() {
        const LIST: List = List(1);
        let place = Uuid::now_v7();
        let cursor = page::encode(LIST, place);
        let page = |text: String| Query::<Filter> { text, parameters: PhantomData }.read_page(LIST);
        let (filter, first) = page(format!("id={place}&at=2026-01-01T00:00:00Z&depth=-3")).unwrap();
        assert!(filter.id == Some(place) && filter.at.is_some() && filter.depth == Some(-3));
        assert_eq!((first.limit(), first.after::<Uuid>()), (50, None));
        let (_, next) = page(format!("limit=7&cursor={cursor}")).unwrap();
        assert_eq!((next.limit(), next.n_rows(), next.after()), (7, 8, Some(place)));
        let problem = page("limit=0&cursor=x&state=a".to_owned()).unwrap_err();
        let named: Vec<_> = problem.errors.iter().map(|error| &*error.pointer).collect();
        assert_eq!(named, ["/cursor", "/limit", "/state"]);
        let unfiltered = Query::<NoFilter> { text: "limit=2".to_owned(), parameters: PhantomData };
        assert_eq!(unfiltered.read_page(LIST).unwrap().1.limit(), 2);
    }
}
