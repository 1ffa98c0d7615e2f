//! `run_command`: runs a program that the operator allows, in the workspace.

use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::{EffectClass, Pointer, Problems};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{path_schema, problem_at, read_params, spec};
use crate::command::{CommandEnd, CommandRequest, CommandSetupError, Commands, RunCommandPolicy};
use crate::spec::ToolSpec;
use crate::tool::{Tool, ToolContext, ToolError};
use crate::workspace::WorkspacePath;

/// The arguments of one call together, in bytes.
const MAX_ARGS_BYTES: usize = 64 * 1024;
/// The input of one call, in characters.
const MAX_STDIN_CHARS: usize = 1024 * 1024;

/// Runs a program without a shell.
#[derive(Debug)]
pub struct RunCommand {
    spec: ToolSpec,
    commands: Commands,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    program: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    stdin: Option<String>,
    #[serde(default)]
    timeout_seconds: Option<f64>,
    #[serde(default)]
    cwd: String,
}

impl RunCommand {
    /// The tool. Starts the launcher of the policy once, to ask what this system can confine; blocks for a moment.
    ///
    /// # Errors
    /// [`CommandSetupError`] if the system cannot do what the policy demands.
    pub fn new(policy: RunCommandPolicy) -> Result<Self, CommandSetupError> {
        let commands = Commands::new(policy)?;
        let description = "Runs a program in the workspace, without a shell. The result has its exit code, whatever it \
                           is, and the beginning of its outputs.";
        let spec = spec("run_command", description, EffectClass::Unsafe, &["program"], properties(&commands));
        Ok(Self { spec, commands })
    }

    /// What confines every command: `{files, network, processes}`.
    pub fn confinement(&self) -> Value {
        self.commands.confinement()
    }
}

fn properties(commands: &Commands) -> Value {
    let policy = &commands.policy;
    let programs: Vec<&String> = policy.programs.keys().collect();
    json!({
        "program": {"description": "The program.", "enum": programs},
        "args": {
            "description": "Its arguments, each as it is.",
            "type": "array", "maxItems": 1000, "items": {"type": "string"}
        },
        "stdin": {"description": "Its input; none by default.", "type": "string", "maxLength": MAX_STDIN_CHARS},
        "timeout_seconds": {
            "description": "The longest time; the longest that is allowed by default.",
            "type": "number", "exclusiveMinimum": 0, "maximum": policy.max_time.as_secs_f64()
        },
        "cwd": path_schema("The directory to run in; the root of the workspace by default")
    })
}

#[async_trait]
impl Tool for RunCommand {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn check(&self, params: &Value) -> Problems {
        let mut problems = Problems::new();
        let mut n_bytes = 0;
        for (index, arg) in params["args"].as_array().into_iter().flatten().enumerate() {
            let arg = arg.as_str().unwrap_or_default();
            n_bytes += arg.len();
            if arg.contains('\0') {
                problems.add(Pointer::root().join("args").join(index), "must not contain a zero byte");
            }
        }
        if n_bytes > MAX_ARGS_BYTES {
            problems.extend(problem_at("args", format!("has more than {MAX_ARGS_BYTES} bytes: use `stdin`")));
        }
        problems
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let params: Params = read_params(params)?;
        let directory: WorkspacePath = params.cwd.parse()?;
        let (workspace, directory) = context.workspace()?.open_for_program(&directory).await?;
        let longest = self.commands.policy.max_time;
        let timeout = params.timeout_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let ended = self.commands.run(CommandRequest {
            program: params.program,
            args: params.args,
            stdin: params.stdin,
            timeout: timeout.unwrap_or(longest).min(longest),
            workspace: workspace.to_path_buf(),
            directory,
        });
        let mut result = to_value(&ended.await?);
        result["confinement"] = self.confinement();
        Ok(result)
    }
}

fn to_value(ended: &CommandEnd) -> Value {
    json!({
        "exit_code": ended.exit_code,
        "timed_out": ended.exit_code.is_none(),
        "stdout": String::from_utf8_lossy(&ended.stdout.bytes),
        "stderr": String::from_utf8_lossy(&ended.stderr.bytes),
        "stdout_dropped_bytes": ended.stdout.n_dropped,
        "stderr_dropped_bytes": ended.stderr.n_dropped,
        "duration_ms": u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX)
    })
}
