//! What clients of protected resources should know of them (RFC 9728): MCP clients read it after a 401.
//!
//! No authorization server is named: this server accepts its own tokens and API keys only, and a client that was sent
//! elsewhere for a token would come back with one that is refused.

use actix_web::http::header::{CACHE_CONTROL, VARY};
use actix_web::{HttpRequest, HttpResponse};
use gathering_auth::Scope;
use gathering_edge::authority::own_origin;
use gathering_edge::problem::{Kind, ProblemDetails};
use serde::Serialize;
use utoipa::ToSchema;

/// The page that says how a client gets in.
const DOCUMENTATION: &str =
    concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/mcp.md#serving-mcp-clients");

/// What a client of a protected resource should know.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetadataView {
    /// The resource, by the address with which the client reaches this server.
    resource: String,
    /// A name for people.
    resource_name: &'static str,
    /// How a token is sent: `header`.
    bearer_methods_supported: [&'static str; 1],
    /// The scopes of API keys that matter for the resource.
    scopes_supported: Vec<&'static str>,
    /// How a person gets an API key, and what a client does with it.
    resource_documentation: &'static str,
}

/// Describes the server as a protected resource (RFC 9728).
#[utoipa::path(get, path = "/.well-known/oauth-protected-resource", tag = "mcp",
    operation_id = "protected_resource", responses((status = 200, body = MetadataView)))]
pub(crate) async fn of_server(request: HttpRequest) -> Result<HttpResponse, ProblemDetails> {
    metadata(&request, "", &Scope::ALL)
}

/// Describes `/mcp` as a protected resource (RFC 9728); the 401 of `/mcp` leads here.
#[utoipa::path(get, path = "/.well-known/oauth-protected-resource/mcp", tag = "mcp",
    operation_id = "protected_resource_mcp", responses((status = 200, body = MetadataView)))]
pub(crate) async fn of_mcp(request: HttpRequest) -> Result<HttpResponse, ProblemDetails> {
    metadata(&request, "/mcp", &[Scope::Read, Scope::Run])
}

fn metadata(request: &HttpRequest, path: &str, scopes: &[Scope]) -> Result<HttpResponse, ProblemDetails> {
    let origin = own_origin(request)
        .ok_or_else(|| ProblemDetails::new(Kind::Malformed, "the header `Host` names no host"))?;
    let view = MetadataView {
        resource: format!("{origin}{path}"),
        resource_name: "GatheRing",
        bearer_methods_supported: ["header"],
        scopes_supported: scopes.iter().map(|scope| scope.as_str()).collect(),
        resource_documentation: DOCUMENTATION,
    };
    // It depends on nothing but the address that was asked for.
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "public, max-age=3600"));
    answer.insert_header((VARY, "Host, X-Forwarded-Host, X-Forwarded-Proto"));
    Ok(answer.json(view))
}
