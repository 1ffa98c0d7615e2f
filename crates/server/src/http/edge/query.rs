//! Query strings: an unknown parameter is refused, as an unknown field of a body is.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use gathering_domain::{Pointer, Problems};
use serde::de::DeserializeOwned;

use crate::http::edge::problem::Problem;

/// The parameters of a query, not yet judged: who asks is looked at first.
pub(crate) struct Query<T>(Result<T, Problem>);

impl<T> Query<T> {
    /// The parameters.
    ///
    /// # Errors
    /// 422 names the one that is unknown or given twice.
    pub(crate) fn read(self) -> Result<T, Problem> {
        self.0
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let read = web::Query::<T>::from_query(request.query_string());
        ready(Ok(Self(read.map(web::Query::into_inner).map_err(|error| invalid(&error.to_string())))))
    }
}

/// The parameters are all texts, so what is wrong is one too many, or one twice: serde's message names it.
fn invalid(message: &str) -> Problem {
    let message = message.strip_prefix("Query deserialize error: ").unwrap_or(message);
    let name = message.split('`').nth(1);
    let pointer = name.map_or_else(Pointer::root, |name| Pointer::root().join(name));
    Problem::invalid(Problems::one(pointer, message))
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::body::to_bytes;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        #[expect(dead_code, reason = "only its name matters here")]
        state: Option<String>,
    }

    #[actix_web::test]
    async fn an_unknown_parameter_and_one_given_twice_are_named() {
        for (query, pointer) in [("stat=x", "/stat"), ("state=a&state=b", "/state")] {
            let error = web::Query::<Parameters>::from_query(query).unwrap_err();
            let response = invalid(&error.to_string()).error_response();
            assert_eq!(response.status(), 422);
            let body: Value = serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
            assert_eq!(body["errors"][0]["pointer"], pointer, "{body}");
        }
    }
}
