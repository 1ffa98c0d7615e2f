//! What an endpoint declares about itself, and how a request finds its declaration.
//!
//! The one table of all endpoints is `http/routes.rs`. Routing, authentication, rate limits, body limits and the
//! OpenAPI document read it. This file never knows a handler.

use std::collections::HashMap;

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::{HttpMessage as _, HttpRequest, Resource};
use gathering_auth::{Action, AuthError, Caller, Credential, Denied, authorize_admin};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{RefOr, Schema};

use crate::limits::Tier;
use crate::problem::ProblemDetails;

/// One endpoint.
pub struct Route {
    /// The method. A route that answers GET answers HEAD too.
    pub method: Method,
    /// The pattern that the router matches.
    pub path: &'static str,
    /// Which callers it serves.
    pub access: Access,
    /// Which rate limit it counts against.
    pub tier: Tier,
    /// The largest request body that it accepts.
    pub body: BodyLimit,
    /// Adds the handler to the resource of the path.
    pub handler: fn(Resource) -> Resource,
    /// Describes the endpoint for the OpenAPI document.
    pub describe: fn() -> Description,
}

/// What an endpoint's documentation says.
pub struct Description {
    /// The methods and the path that the documentation names; a test compares them with those of the table.
    pub documented: (Vec<utoipa::openapi::HttpMethod>, String),
    /// The operation with its parameters, body and responses.
    pub operation: Operation,
    /// The component schemas that the operation refers to.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

/// Which callers an endpoint serves. The server checks this before the handler runs; what a role allows inside a
/// project is decided where the project is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone, without a login.
    Public,
    /// Every account, with a login session or any API key.
    Account,
    /// Every account, but only with a login session.
    Session,
    /// Every account, for what is its own; an API key needs the scope.
    Own(Action),
    /// Members of a project whose role allows the action; an API key needs the scope.
    Project(Action),
    /// Admins; an API key needs the scope `admin`.
    Admin,
}

/// The largest request body of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    /// The endpoint reads no body.
    None,
    /// 64 KiB: a body without a definition or an input.
    Small,
    /// 1 MiB: a message of another program, in whatever form.
    Message,
    /// 16 MiB: a body with a definition or a run's input.
    Large,
    /// The setting `GATHERING_MAX_FILE_BYTES`; the body streams to the disk.
    File,
}

/// The table, by pattern and method.
pub struct RouteIndex(HashMap<&'static str, Vec<&'static Route>>);

/// The route that a request matched, kept with the request.
#[derive(Clone, Copy)]
struct Matched(&'static Route);

impl Access {
    /// Checks whether the credential of `caller` is strong enough for the endpoint.
    ///
    /// # Errors
    /// 403 for an API key that lacks the scope, for an API key where a login session is required, and for a caller that
    /// is no admin where one is required.
    pub fn check(self, caller: &Caller) -> Result<(), ProblemDetails> {
        match self {
            Access::Public | Access::Account => Ok(()),
            Access::Session if matches!(caller.credential, Credential::Session { .. }) => Ok(()),
            Access::Session => Err(AuthError::SessionNeeded.into()),
            Access::Own(action) | Access::Project(action) if caller.credential.allows(action) => Ok(()),
            Access::Own(_) | Access::Project(_) => Err(Denied::Forbidden.into()),
            Access::Admin => Ok(authorize_admin(caller)?),
        }
    }

    /// Its name in the OpenAPI document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Access::Public => "public",
            Access::Account => "account",
            Access::Session => "session",
            Access::Own(_) => "own",
            Access::Project(_) => "project",
            Access::Admin => "admin",
        }
    }

    /// The scope that an API key needs; `None` where no scope is required or no API key is accepted.
    pub const fn scope(self) -> Option<&'static str> {
        match self {
            Access::Public | Access::Account | Access::Session => None,
            Access::Own(action) | Access::Project(action) => Some(scope_for(action)),
            Access::Admin => Some("admin"),
        }
    }
}

const fn scope_for(action: Action) -> &'static str {
    match action {
        Action::Read => "read",
        Action::Write => "write",
        Action::Run => "run",
        Action::Manage => "manage",
    }
}

impl BodyLimit {
    /// The limit in bytes; `None` where a setting decides.
    pub const fn bytes(self) -> Option<usize> {
        match self {
            BodyLimit::None => Some(0),
            BodyLimit::Small => Some(64 * 1024),
            BodyLimit::Message => Some(1024 * 1024),
            BodyLimit::Large => Some(16 * 1024 * 1024),
            BodyLimit::File => None,
        }
    }
}

impl Description {
    /// The documentation that `#[utoipa::path]` wrote for a handler.
    pub fn of<'a, D>() -> Self
    where
        D: utoipa::Path + utoipa::__dev::SchemaReferences + utoipa::__dev::Tags<'a>,
    {
        let mut operation = D::operation();
        operation.tags = Some(D::tags().into_iter().map(str::to_owned).collect());
        let mut schemas = Vec::new();
        <D as utoipa::__dev::SchemaReferences>::schemas(&mut schemas);
        Self { documented: (D::methods(), D::path()), operation, schemas }
    }
}

impl RouteIndex {
    /// Indexes the table.
    pub fn of(routes: &'static [Route]) -> Self {
        let mut by_path: HashMap<&'static str, Vec<&'static Route>> = HashMap::new();
        for route in routes {
            by_path.entry(route.path).or_default().push(route);
        }
        Self(by_path)
    }

    /// Whether a route of the table has this path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The route that will answer the request, as the router reads its path: `/%6Cogin` is `/login`.
    pub fn find(&self, request: &ServiceRequest) -> Option<&'static Route> {
        let pattern = request.resource_map().match_pattern(request.match_info().as_str())?;
        let routes = self.0.get(pattern.as_str())?;
        routes.iter().find(|route| route.method == request.method()).copied()
    }

    /// The methods that the path of the request answers, for the header `Allow`; empty for an unknown path.
    pub fn methods(&self, request: &ServiceRequest) -> Vec<&'static str> {
        let pattern = request.resource_map().match_pattern(request.match_info().as_str());
        let routes = pattern.and_then(|pattern| self.0.get(pattern.as_str()));
        let answers =
            |method: &Method| routes.is_some_and(|routes| routes.iter().any(|route| route.method == *method));
        let order = [
            ("GET", Method::GET),
            ("HEAD", Method::GET),
            ("PUT", Method::PUT),
            ("POST", Method::POST),
            ("DELETE", Method::DELETE),
            ("PATCH", Method::PATCH),
        ];
        order.into_iter().filter(|(_, method)| answers(method)).map(|(name, _)| name).collect()
    }
}

/// Keeps the matched route with the request.
pub fn remember(request: &ServiceRequest, route: &'static Route) {
    request.extensions_mut().insert(Matched(route));
}

/// The route that the request matched.
///
/// # Errors
/// A 500 for a request that matched none: a handler outside the table.
pub fn matched(request: &HttpRequest) -> Result<&'static Route, ProblemDetails> {
    let matched = request.extensions().get::<Matched>().copied();
    matched
        .map(|Matched(route)| route)
        .ok_or_else(|| ProblemDetails::internal("the route is not in the table"))
}
