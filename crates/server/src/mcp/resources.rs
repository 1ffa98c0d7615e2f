//! What can be read at an address: files of projects, and outputs of runs.

use gathering_auth::Caller;
use gathering_control::{OpenWorkspaceError, Run, right};
use gathering_domain::RunId;
use gathering_mcp::offer::{OfferError, ResourceContent, ResourceTemplate};
use gathering_tools::{WorkspaceError, WorkspacePath};

use super::{McpDesk, refused};

/// The form of the address of an output.
pub(crate) const OUTPUT_TEMPLATE: ResourceTemplate = ResourceTemplate {
    uri_template: "gathering://runs/{run_id}/output",
    name: "output",
    description: "The output of a run that has succeeded",
    mime_type: Some("application/json"),
};

pub(super) const TEMPLATES: &[ResourceTemplate] = &[
    ResourceTemplate {
        uri_template: "gathering://projects/{project_id}/files/{+path}",
        name: "file",
        description: "A file of a project, at most 4 MiB",
        mime_type: None,
    },
    OUTPUT_TEMPLATE,
];

/// The largest file that is read here.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The address of the output of a run.
pub(super) fn uri_of_output(run: RunId) -> String {
    format!("gathering://runs/{run}/output")
}

impl McpDesk {
    pub(super) async fn read(&self, caller: &Caller, uri: &str) -> Result<ResourceContent, OfferError> {
        let absent = || OfferError::NotFound("no such resource, or you have no access to it".to_owned());
        let rest = uri.strip_prefix("gathering://").ok_or_else(absent)?;
        if let Some((project, path)) =
            rest.strip_prefix("projects/").and_then(|rest| rest.split_once("/files/"))
        {
            let path = percent_decoded(path).ok_or_else(absent)?;
            return self.read_file(caller, project, &path).await;
        }
        let run: RunId = run_of_output(uri).and_then(|run| run.parse().ok()).ok_or_else(absent)?;
        output_of(self.runs.find::<right::Read>(caller, run).await.map_err(refused)?.into_thing())
    }

    async fn read_file(
        &self,
        caller: &Caller,
        project: &str,
        path: &str,
    ) -> Result<ResourceContent, OfferError> {
        let absent = || OfferError::NotFound("no such resource, or you have no access to it".to_owned());
        let project = project.parse().map_err(|_| absent())?;
        let path: WorkspacePath = path.parse().map_err(of_file)?;
        let workspace = self.workspaces.open_as::<right::Read>(caller, project).await;
        let workspace = workspace.map_err(|error| match error {
            OpenWorkspaceError::NoProject(_) => absent(),
            OpenWorkspaceError::Lookup(error) => refused(error),
            error => OfferError::Internal(error.into()),
        })?;
        let content = workspace.read(&path, MAX_FILE_BYTES).await.map_err(of_file)?;
        let mime_type = mime_guess::from_path(path.as_str()).first_or_octet_stream().to_string();
        Ok(ResourceContent { mime_type, bytes: content.bytes })
    }
}

/// The run whose output is at this address, as it stands there.
pub(crate) fn run_of_output(uri: &str) -> Option<&str> {
    uri.strip_prefix("gathering://runs/")?.strip_suffix("/output")
}

/// The output of a run as a resource.
///
/// # Errors
/// [`OfferError::Conflict`] if it has none.
pub(crate) fn output_of(run: Run) -> Result<ResourceContent, OfferError> {
    let state = run.state.as_str();
    let output =
        run.output.ok_or_else(|| OfferError::Conflict(format!("the run has no output: it is {state}")))?;
    Ok(ResourceContent { mime_type: "application/json".to_owned(), bytes: output.to_string().into_bytes() })
}

fn of_file(error: WorkspaceError) -> OfferError {
    match error {
        WorkspaceError::Escape => OfferError::Forbidden(error.to_string()),
        WorkspaceError::InvalidPath { .. } | WorkspaceError::NotFound { .. } => {
            OfferError::NotFound(error.to_string())
        }
        WorkspaceError::Io { .. } | WorkspaceError::Panicked(_) => OfferError::Internal(error.into()),
        other => OfferError::Conflict(other.to_string()),
    }
}

/// The text of a path in an address; `None` if it is none.
fn percent_decoded(path: &str) -> Option<String> {
    percent_encoding::percent_decode_str(path).decode_utf8().ok().map(Into::into)
}
