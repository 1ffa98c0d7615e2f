//! Reading a server's list of tools, page by page.
//!
//! Invariant: a list without end costs bounded requests and memory. What was read of it stays usable.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::McpError;
use crate::connection::Connection;
use crate::definition::ToolDefinition;

/// The most pages that are read.
const MAX_PAGES: usize = 64;
/// The most bytes of all pages.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) tools: Vec<ToolDefinition>,
    pub(crate) problems: Vec<String>,
}

/// Reads the list. The caller limits the time.
///
/// # Errors
/// If a page cannot be got.
pub(crate) async fn list_tools(connection: &Connection) -> Result<Listed, McpError> {
    let mut listed = Listed::default();
    if !connection.info.has_tools {
        return Ok(listed);
    }
    let (mut params, mut cursors, mut left_bytes) = (json!({}), BTreeSet::new(), MAX_BYTES);
    for _ in 0..MAX_PAGES {
        let page = connection.ask_without_end("tools/list", params).await?;
        match left_bytes.checked_sub(page.size_bytes) {
            Some(left) => left_bytes = left,
            None => return Ok(listed.cut(format!("it is larger than {MAX_BYTES} bytes"))),
        }
        listed.add_page(&page.result)?;
        let max_tools = connection.limits.max_tools;
        if listed.tools.len() > max_tools {
            listed.tools.truncate(max_tools);
            return Ok(listed.cut(format!("it has more than {max_tools} tools")));
        }
        let cursor =
            page.result.get("nextCursor").and_then(Value::as_str).filter(|cursor| !cursor.is_empty());
        let Some(cursor) = cursor else { return Ok(listed) };
        if !cursors.insert(cursor.to_owned()) {
            return Ok(listed.cut("it leads back to a page that was read".to_owned()));
        }
        params = json!({"cursor": cursor});
    }
    Ok(listed.cut(format!("it has more than {MAX_PAGES} pages")))
}

impl Listed {
    fn add_page(&mut self, page: &Value) -> Result<(), McpError> {
        let Some(tools) = page.get("tools").and_then(Value::as_array) else {
            return Err(McpError::InvalidAnswer { reason: "the list of tools has no `tools`".to_owned() });
        };
        for entry in tools {
            match ToolDefinition::read(entry) {
                Some(definition) => self.tools.push(definition),
                None if self.problems.is_empty() => {
                    self.problems.push("an entry of the list has no name; it is left out".to_owned());
                }
                None => {}
            }
        }
        Ok(())
    }

    fn cut(mut self, why: String) -> Self {
        self.problems.push(format!("the list was not read to its end: {why}"));
        self
    }
}
