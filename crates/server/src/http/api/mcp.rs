//! `POST /mcp`: the messages of MCP clients (streamable HTTP without sessions).

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, HOST, ORIGIN};
use actix_web::{HttpRequest, HttpResponse, web};
use gathering_edge::body::Body;
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::values::AnyObject;
use gathering_mcp::offer::{McpHeaders, McpReply, answer};

use crate::mcp::McpDesk;

/// Answers one JSON-RPC message of an MCP client: of the version 2026-07-28, or of one that begins with `initialize`.
/// There are no sessions, so that every instance answers every message.
#[utoipa::path(post, path = "/mcp", tag = "mcp", operation_id = "mcp", params(
    ("MCP-Protocol-Version" = Option<String>, Header),
    ("Mcp-Method" = Option<String>, Header, description = "Since 2026-07-28: the method of the message"),
    ("Mcp-Name" = Option<String>, Header, description = "Since 2026-07-28: the name of what the message is about"),
), request_body = AnyObject, responses(
    (status = 200, body = AnyObject, description = "The answer, or its error"),
    (status = 202, description = "The message asks for nothing"),
    (status = 400, description = "No request that can be answered", body = AnyObject),
    (status = 403, description = "The message comes from a page of another site"),
    (status = 404, description = "Since 2026-07-28: no such method. Before: no such session", body = AnyObject),
    (status = 406, description = "The client takes no JSON"),
))]
pub(crate) async fn post(
    desk: web::Data<McpDesk>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    check_origin(&request)?;
    check_accept(&request)?;
    let (caller, body) = body.receive().await?;
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let headers = McpHeaders {
        is_http: true,
        protocol_version: header("mcp-protocol-version"),
        method: header("mcp-method"),
        name: header("mcp-name"),
        session: header("mcp-session-id"),
    };
    let McpReply { status, body } = answer(&**desk, &caller, &body.into_bytes(), &headers).await;
    let status = StatusCode::from_u16(status).map_err(ProblemDetails::internal)?;
    let mut response = HttpResponse::build(status);
    Ok(match body {
        Some(body) => response.json(body),
        None => response.finish(),
    })
}

/// A browser sends the origin of the page: one of another site must not speak for its visitor.
fn check_origin(request: &HttpRequest) -> Result<(), ProblemDetails> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(ORIGIN) else { return Ok(()) };
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    if of_origin.is_some() && of_origin == text(HOST) {
        return Ok(());
    }
    Err(ProblemDetails::forbidden("this message comes from a page of another site"))
}

fn check_accept(request: &HttpRequest) -> Result<(), ProblemDetails> {
    let accepted: Vec<&str> = request
        .headers()
        .get_all(ACCEPT)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let takes_json = accepted.iter().any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        matches!(range, "application/json" | "application/*" | "*/*")
    });
    if accepted.is_empty() || takes_json {
        return Ok(());
    }
    let detail = "the answer is `application/json`: send `Accept: application/json, text/event-stream`";
    Err(ProblemDetails::new(Kind::Other(StatusCode::NOT_ACCEPTABLE), detail))
}
