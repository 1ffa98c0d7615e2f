//! The registered tools, and the only way to call them.
//!
//! Invariant: no tool is called with parameters that its schema or its own check rejects.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use gathering_domain::{MAX_TOOL_NAME, Problem, Problems, is_tool_name};
use serde_json::Value;

use crate::pool::BlockingPool;
use crate::result_limit::{self, LEAST_LIMIT};
use crate::spec::ToolSpec;
use crate::tool::{BlockingTool, Tool, ToolContext, ToolError};
use gathering_domain::EffectClass;
use gathering_schema::{InvalidSchema, JsonSchema};

/// How many names of tools a message lists.
const MAX_KNOWN: usize = 50;

/// A set of tools. Clones are cheap and share the tools. Registering a tool in one clone does not change another.
#[derive(Clone)]
pub struct Toolbox {
    tools: Arc<BTreeMap<String, Entry>>,
    pool: BlockingPool,
    result_limit: usize,
}

#[derive(Clone)]
struct Entry {
    tool: Arc<dyn Tool>,
    schema: Arc<JsonSchema>,
}

/// A tool could not be registered. The toolbox is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum RegisterToolError {
    /// A tool with this name exists.
    #[error("a tool named `{0}` is already registered")]
    NameTaken(String),
    /// A name that model providers would reject.
    #[error("`{0}` is not a tool name: use 1 to 64 letters, digits, `_` or `-`")]
    InvalidName(String),
    /// The parameters have no valid schema.
    #[error("invalid parameter schema of tool `{name}`")]
    InvalidSchema {
        /// The tool.
        name: String,
        /// The error.
        #[source]
        source: InvalidSchema,
    },
}

impl Toolbox {
    /// The default limit of a result: 4 MiB, which is more than a built-in tool returns as a rule.
    pub const DEFAULT_RESULT_LIMIT: usize = 4 * 1024 * 1024;

    /// An empty toolbox that runs blocking tools on `pool`.
    pub fn new(pool: BlockingPool) -> Self {
        Self { tools: Arc::default(), pool, result_limit: Self::DEFAULT_RESULT_LIMIT }
    }

    /// The same toolbox with results of at most `bytes`, written as JSON without spaces; at least 4 KiB. A larger result
    /// is cut: the longest texts end with a mark, lists keep their first items, and the field `$cut` says what is
    /// missing.
    #[must_use]
    pub fn with_result_limit(self, bytes: usize) -> Self {
        Self { result_limit: bytes.max(LEAST_LIMIT), ..self }
    }

    /// Adds a tool and compiles its schema.
    ///
    /// # Errors
    /// [`RegisterToolError`]; nothing was added.
    pub fn register(&mut self, tool: impl Tool + 'static) -> Result<(), RegisterToolError> {
        self.add(Arc::new(tool))
    }

    /// Adds a tool that blocks; its calls run on the blocking pool.
    ///
    /// # Errors
    /// [`RegisterToolError`]; nothing was added.
    pub fn register_blocking(&mut self, tool: impl BlockingTool + 'static) -> Result<(), RegisterToolError> {
        self.add(Arc::new(OnPool { tool: Arc::new(tool), pool: self.pool.clone() }))
    }

    fn add(&mut self, tool: Arc<dyn Tool>) -> Result<(), RegisterToolError> {
        let name = tool.spec().name.clone();
        if !is_tool_name(&name) {
            return Err(RegisterToolError::InvalidName(name.chars().take(MAX_TOOL_NAME).collect()));
        }
        if self.tools.contains_key(&name) {
            return Err(RegisterToolError::NameTaken(name));
        }
        let compiled = JsonSchema::compile(&tool.spec().parameters);
        let schema =
            compiled.map_err(|source| RegisterToolError::InvalidSchema { name: name.clone(), source })?;
        Arc::make_mut(&mut self.tools).insert(name, Entry { tool, schema: Arc::new(schema) });
        Ok(())
    }

    /// The tool with this name.
    pub fn get(&self, name: &str) -> Option<&ToolSpec> {
        self.tools.get(name).map(|entry| entry.tool.spec())
    }

    /// All tools, by name.
    pub fn list(&self) -> impl ExactSizeIterator<Item = &ToolSpec> {
        self.tools.values().map(|entry| entry.tool.spec())
    }

    /// A toolbox with only these tools, such as those that an agent may use.
    ///
    /// # Errors
    /// [`ToolError::UnknownTool`] for the first unknown name.
    pub fn select<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Toolbox, ToolError> {
        let mut selected = BTreeMap::new();
        for name in names {
            selected.insert(name.to_owned(), self.entry(name)?.clone());
        }
        Ok(Toolbox { tools: Arc::new(selected), pool: self.pool.clone(), result_limit: self.result_limit })
    }

    /// What repeating this call may do.
    ///
    /// # Errors
    /// [`ToolError::UnknownTool`].
    pub fn class_of(&self, name: &str, params: &Value) -> Result<EffectClass, ToolError> {
        Ok(self.entry(name)?.tool.class_of(params))
    }

    /// Whether a call of this tool may use the workspace; of an unknown one it does not.
    pub fn uses_files(&self, name: &str) -> bool {
        self.entry(name).is_ok_and(|entry| entry.tool.uses_files())
    }

    /// Checks the parameters of a call without making it.
    ///
    /// # Errors
    /// [`ToolError::UnknownTool`], or [`ToolError::InvalidParameters`] with every bad parameter.
    pub fn check(&self, name: &str, params: &Value) -> Result<(), ToolError> {
        let Entry { tool, schema } = self.entry(name)?;
        let by_schema = schema.check(params).err().into_iter().flatten();
        let mut found: Vec<Problem> = by_schema.chain(tool.check(params)).collect();
        found.sort();
        found.dedup();
        let mut problems = Problems::new();
        for problem in found {
            problems.add(problem.pointer, problem.message);
        }
        problems.into_result().map_err(ToolError::InvalidParameters)
    }

    /// As [`Toolbox::check`], if the tool is known to exist. An unknown tool is a problem of the whole value.
    ///
    /// # Errors
    /// Every problem, with its location in `params`.
    pub fn validate(&self, name: &str, params: &Value) -> Result<(), Problems> {
        self.check(name, params).map_err(|error| match error {
            ToolError::InvalidParameters(problems) => problems,
            other => Problems::one(gathering_domain::Pointer::root(), other.to_string()),
        })
    }

    /// Checks the parameters, then calls the tool. A result that is larger than the limit is cut.
    ///
    /// Cancel: as the tool. A blocking tool that has started runs to its end, also after the deadline of `context`;
    /// [`BlockingPool::n_abandoned`] counts such calls.
    ///
    /// # Errors
    /// As [`Toolbox::check`], in which case nothing was executed; then as [`Tool::call`]; [`ToolError::TimedOut`] at the
    /// deadline.
    pub async fn call(&self, name: &str, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        self.call_and_edit(name, params, context, |_| ()).await
    }

    /// As [`Toolbox::call`]; `edit` changes the whole result before it is cut, as somebody must who looks for texts in it:
    /// of a text that the cut goes through, only the beginning would be left.
    ///
    /// # Errors
    /// As [`Toolbox::call`].
    pub async fn call_and_edit(
        &self,
        name: &str,
        params: Value,
        context: &ToolContext,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Value, ToolError> {
        self.check(name, &params)?;
        let call = self.entry(name)?.tool.call(params, context);
        let result = match context.deadline {
            None => call.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, call).await {
                Ok(ended) => ended,
                Err(_) => Err(ToolError::TimedOut { name: name.to_owned() }),
            },
        };
        let mut result = result?;
        edit(&mut result);
        Ok(self.bound(result))
    }

    /// The result of a call that was made without this toolbox, cut as [`Toolbox::call`] cuts results.
    pub fn bound(&self, result: Value) -> Value {
        result_limit::bound(result, self.result_limit)
    }

    /// The names of the tools, or of the first ones.
    fn known(&self) -> String {
        let mut names: Vec<&str> = self.tools.keys().map(String::as_str).take(MAX_KNOWN).collect();
        if self.tools.len() > MAX_KNOWN {
            names.push("...");
        }
        names.join(", ")
    }

    fn entry(&self, name: &str) -> Result<&Entry, ToolError> {
        self.tools.get(name).ok_or_else(|| ToolError::UnknownTool {
            name: name.chars().take(MAX_TOOL_NAME).collect(),
            known: self.known(),
        })
    }
}

impl std::fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tools.keys()).finish()
    }
}

/// A blocking tool, made async by the pool.
struct OnPool<T> {
    tool: Arc<T>,
    pool: BlockingPool,
}

#[async_trait]
impl<T: BlockingTool + 'static> Tool for OnPool<T> {
    fn spec(&self) -> &ToolSpec {
        self.tool.spec()
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let (tool, context) = (Arc::clone(&self.tool), context.clone());
        let ended = self.pool.run_long(move || tool.call(params, &context)).await;
        ended.map_err(ToolError::Panicked)?
    }
}
