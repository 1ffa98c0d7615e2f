//! The files of a project's workspace: listed, read, written and removed.
//!
//! Owns the way from a request's path to a path in the workspace, and from the workspace's errors to problems. A path
//! is decoded once, here, from the bytes on the wire; the workspace decides which paths are allowed.

mod download;

use actix_web::http::header::{self, ETag, EntityTag, Header as _, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use gathering_control::{ProjectControl, ScheduleControl, Workspaces, right};
use gathering_domain::ProjectId;
use gathering_tools::{Entry, FileVersion, ListOptions, Precondition, WorkspaceError, WorkspacePath};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::api::words::FileKindSchema;
use crate::http::services::MaxFileBytes;
use gathering_edge::caller::{Authenticated, authenticate};
use gathering_edge::conditions::Expected;
use gathering_edge::page::{self, Page};
use gathering_edge::problem::{Kind, ProblemDetails};
use gathering_edge::query::Query;
use gathering_edge::upload::Incoming;
use gathering_edge::values::Binary;

/// The number of slashes in `/api/v1/projects/{id}/files/`; the file's path follows the last one. Routing neither
/// decodes an escape into a slash nor encodes one.
const SLASHES_BEFORE_PATH: usize = 6;

/// The prefix of a cursor of this list.
const CURSOR: &str = "files:";

/// A file or a directory.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = File)]
pub(crate) struct FileView {
    /// From the workspace's root, with `/` between names.
    #[schema(example = "reports/2026.md")]
    path: String,
    #[schema(value_type = FileKindSchema)]
    kind: &'static str,
    /// In bytes; 0 for a directory.
    size: u64,
    modified_at: DateTime<Utc>,
}

impl FileView {
    fn of(entry: Entry) -> Self {
        let Entry { path, kind, size_bytes, modified_at, .. } = entry;
        Self { path: path.to_string(), kind: kind.as_str(), size: size_bytes, modified_at }
    }
}

/// Which files to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListFiles {
    /// The directory; the root by default.
    path: Option<String>,
    /// Also lists what is in the directories below.
    #[param(default = false)]
    recursive: Option<bool>,
    /// The length of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The entries of a directory of the workspace, by name; a directory precedes what is in it.
#[utoipa::path(get, path = "/api/v1/projects/{id}/files", tag = "files", operation_id = "list_files", params(("id" = Uuid, Path), ListFiles), responses(
    (status = 200, body = Page<FileView>),
    (status = 403, description = "The path leads out of the workspace"),
    (status = 409, description = "The path is not a directory"),
))]
pub(crate) async fn list(
    workspaces: web::Data<Workspaces>,
    caller: Authenticated,
    id: web::Path<ProjectId>,
    query: Query<ListFiles>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let workspace = workspaces.open_as::<right::Read>(&caller.0, *id).await?;
    let query = query.read()?;
    let directory = directory_in(&query, &request)?;
    let mut options =
        if query.recursive == Some(true) { ListOptions::recursive() } else { ListOptions::flat() };
    if let Some(text) = &query.cursor {
        let after = cursor_of(text, &directory).ok_or_else(|| {
            ProblemDetails::invalid_field("cursor", "must be the `next_cursor` of a page of this list")
        })?;
        options = options.after(after);
    }
    let limit = query.limit.unwrap_or(page::DEFAULT_LIMIT);
    let listing = workspace.list(&directory, options.limit(limit)).await?;
    let items = listing.items.into_iter().map(FileView::of).collect();
    let next_cursor = listing.next.map(|after| URL_SAFE_NO_PAD.encode(format!("{CURSOR}{after}")));
    Ok(HttpResponse::Ok().json(Page { items, next_cursor }))
}

/// The content of a file. A request for several ranges is answered with the whole file.
#[utoipa::path(get, path = "/api/v1/projects/{id}/files/{path}", tag = "files", operation_id = "read_file", params(
    ("id" = Uuid, Path),
    ("path" = String, Path, description = "From the workspace's root; may have `/` in it"),
    ("Range" = Option<String>, Header, description = "`bytes=0-1023`, `bytes=1024-` or `bytes=-1024`"),
    ("If-Range" = Option<String>, Header, description = "An `ETag`: the range only of this version, else the whole file"),
    ("If-Match" = Option<String>, Header, description = "`ETag`s: only one of these versions"),
    ("If-None-Match" = Option<String>, Header, description = "`ETag`s: only another version than these"),
), responses(
    (status = 200, body = inline(Binary), content_type = "application/octet-stream", description = "The bytes, with `ETag`, `Last-Modified` and the type that the name suggests"),
    (status = 206, body = inline(Binary), content_type = "application/octet-stream", description = "The range that was asked for"),
    (status = 304, description = "It is one of the versions in `If-None-Match`"),
    (status = 403, description = "The path leads out of the workspace"),
    (status = 409, description = "The path is a directory"),
    (status = 412),
    (status = 416),
))]
pub(crate) async fn show(
    workspaces: web::Data<Workspaces>,
    caller: Authenticated,
    id: web::Path<(ProjectId, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let workspace = workspaces.open_as::<right::Read>(&caller.0, id.0).await?;
    let path = path_of(&request)?;
    let file = workspace.open_file(&path).await?;
    download::answer(&request, &path, file)
}

/// Writes a file, whole or not at all, and creates missing directories. Until the file is complete, readers get the old
/// content.
#[utoipa::path(put, path = "/api/v1/projects/{id}/files/{path}", tag = "files", operation_id = "write_file", params(
    ("id" = Uuid, Path),
    ("path" = String, Path, description = "From the workspace's root; may have `/` in it"),
    ("If-Match" = Option<String>, Header, description = "`ETag`s, or `*`: only in place of one of these versions, or of any"),
    ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no file yet"),
), request_body(content = inline(Binary), content_type = "application/octet-stream", description = "The bytes as they are"), responses(
    (status = 201, description = "The file is new; with its `ETag`"),
    (status = 204, description = "The file replaces another one; with its `ETag`"),
    (status = 403, description = "The path leads out of the workspace"),
    (status = 408, description = "No data arrived for 30 seconds, or the whole took too long"),
    (status = 409, description = "The path is a directory, or a part of it is a file"),
    (status = 412),
    (status = 415, description = "The body has a content encoding"),
))]
pub(crate) async fn put(
    (projects, schedules): (web::Data<ProjectControl>, web::Data<ScheduleControl>),
    workspaces: web::Data<Workspaces>,
    caller: Authenticated,
    id: web::Path<(ProjectId, String)>,
    request: HttpRequest,
    payload: web::Payload,
    max_file_bytes: web::Data<MaxFileBytes>,
) -> Result<HttpResponse, ProblemDetails> {
    let workspace = workspaces.open_as::<right::Write>(&caller.0, id.0).await?;
    let path = file_path_of(&request)?;
    let precondition = precondition_of(&request)?;
    let incoming = Incoming::of(&request, payload, max_file_bytes.0)?;
    let upload = workspace.begin_write(&path, precondition, max_file_bytes.0).await?;
    // The caller's rights were checked when the first bytes came, which may be hours ago.
    let still_may = async || {
        let caller = authenticate(&request).await?;
        projects.find::<right::Write>(&caller, id.0).await.map(drop)?;
        Ok(())
    };
    let written = incoming.receive(upload, still_may).await?;
    renew_calendars(&schedules, id.0, &path).await;
    let mut response = if written.created { HttpResponse::Created() } else { HttpResponse::NoContent() };
    Ok(response.insert_header(ETag(tag_of(&written.version))).finish())
}

/// Removes a file or an empty directory.
#[utoipa::path(delete, path = "/api/v1/projects/{id}/files/{path}", tag = "files", operation_id = "delete_file", params(
    ("id" = Uuid, Path),
    ("path" = String, Path, description = "From the workspace's root; may have `/` in it"),
    ("If-Match" = Option<String>, Header, description = "`ETag`s: only one of these versions"),
), responses(
    (status = 204),
    (status = 403, description = "The path leads out of the workspace"),
    (status = 409, description = "The directory is not empty"),
    (status = 412),
))]
pub(crate) async fn delete(
    schedules: web::Data<ScheduleControl>,
    workspaces: web::Data<Workspaces>,
    caller: Authenticated,
    id: web::Path<(ProjectId, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, ProblemDetails> {
    let workspace = workspaces.open_as::<right::Write>(&caller.0, id.0).await?;
    let path = path_of(&request)?;
    workspace.remove_if(&path, precondition_of(&request)?).await?;
    renew_calendars(&schedules, id.0, &path).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Schedules whose calendar has changed are planned anew. If that fails, the next round over all calendars does it.
async fn renew_calendars(schedules: &ScheduleControl, project: ProjectId, path: &WorkspacePath) {
    if let Err(error) = schedules.renew_calendars_of(project, path).await {
        let cause = &error as &dyn std::error::Error;
        tracing::warn!(error = cause, project.id = %project, "cannot renew the calendar {path}: {error}");
    }
}

/// The path from the raw request: routing decodes its copy in part.
fn path_of(request: &HttpRequest) -> Result<WorkspacePath, ProblemDetails> {
    Ok(WorkspacePath::from_percent_encoded(raw_path_of(request))?)
}

/// The same for a file to write: a path that ends like a directory's is refused.
fn file_path_of(request: &HttpRequest) -> Result<WorkspacePath, ProblemDetails> {
    let path = path_of(request)?;
    let raw = raw_path_of(request);
    if raw.ends_with('/') || raw.to_ascii_lowercase().ends_with("%2f") {
        return Err(ProblemDetails::invalid_field(
            "path",
            "must be that of a file, without a `/` at its end",
        ));
    }
    Ok(path)
}

fn raw_path_of(request: &HttpRequest) -> &str {
    request.uri().path().splitn(SLASHES_BEFORE_PATH + 1, '/').nth(SLASHES_BEFORE_PATH).unwrap_or_default()
}

/// The directory from the query, which has been decoded.
fn directory_in(query: &ListFiles, request: &HttpRequest) -> Result<WorkspacePath, ProblemDetails> {
    const REPLACEMENT: char = '\u{FFFD}';
    let text = query.path.as_deref().unwrap_or_default();
    // Decoding a query replaces invalid UTF-8 by this character, unless the client sent it on purpose.
    let is_meant = || request.query_string().to_ascii_uppercase().contains("%EF%BF%BD");
    if text.contains(REPLACEMENT) && !is_meant() {
        return Err(WorkspaceError::Escape.into());
    }
    Ok(text.parse::<WorkspacePath>()?)
}

/// Where a page of the list of `directory` ended.
fn cursor_of(text: &str, directory: &WorkspacePath) -> Option<WorkspacePath> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let after: WorkspacePath = text.strip_prefix(CURSOR)?.parse().ok()?;
    let is_beneath = match directory.as_str() {
        "" => !after.is_root(),
        above => after.as_str().strip_prefix(above).is_some_and(|rest| rest.starts_with('/')),
    };
    is_beneath.then_some(after)
}

fn tag_of(version: &FileVersion) -> EntityTag {
    EntityTag::new_strong(version.as_str().to_owned())
}

/// The condition that the file must meet to be changed.
fn precondition_of(request: &HttpRequest) -> Result<Precondition, ProblemDetails> {
    let malformed = |detail: &str| Err(ProblemDetails::new(Kind::Malformed, detail));
    let has_none_match = request.headers().contains_key(header::IF_NONE_MATCH);
    match Expected::of(request)? {
        _ if has_none_match && request.headers().contains_key(header::IF_MATCH) => {
            malformed("`If-Match` and `If-None-Match` cannot be combined")
        }
        Expected::Nothing if has_none_match => match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => Ok(Precondition::Absent),
            _ => malformed("`If-None-Match` must be `*` here"),
        },
        Expected::Nothing => Ok(Precondition::None),
        Expected::Present => Ok(Precondition::Present),
        Expected::OneOf(tags) => Ok(Precondition::Version(tags.into_iter().map(Into::into).collect())),
    }
}

#[cfg(test)]
mod tests;
