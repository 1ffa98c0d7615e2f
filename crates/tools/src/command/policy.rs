//! What the operator allows.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Which programs may run, and with what.
#[derive(Debug, Clone)]
pub struct RunCommandPolicy {
    /// The programs by the names that calls use; absolute paths.
    pub programs: BTreeMap<String, PathBuf>,
    /// What starts them.
    pub launcher: Launcher,
    /// The longest time of one command.
    pub max_time: Duration,
    /// How much is kept of each output, in bytes.
    pub max_output_bytes: usize,
    /// The address space of each process, in bytes.
    pub max_memory_bytes: Option<u64>,
    /// The processes of one command at once. Needs namespaces: elsewhere the limit counts those of the whole account.
    pub max_processes: Option<u64>,
    /// The largest file that a command may write, in bytes.
    pub max_file_bytes: Option<u64>,
    /// How many commands run at once. Others wait.
    pub max_concurrent: usize,
    /// Whether commands may use the network.
    pub allow_network: bool,
    /// Whether a system that cannot confine commands to the workspace is refused.
    pub require_confinement: bool,
    /// Variables of their environment, besides `PATH`, `HOME`, `TMPDIR` and `LANG`.
    pub environment: BTreeMap<String, String>,
    /// What they may read and execute besides the system's programs and libraries.
    pub read_paths: Vec<PathBuf>,
}

/// A program whose main function is [`run_launcher`](super::run_launcher).
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The program.
    pub program: PathBuf,
    /// Arguments before those of the launcher, such as the name of a subcommand.
    pub args: Vec<String>,
}

impl RunCommandPolicy {
    /// Allows `programs` for 60 seconds, with 64 KiB of each output, 1 GiB of memory and 4 commands at once; without
    /// the network, and only where commands can be confined.
    pub fn new(programs: BTreeMap<String, PathBuf>, launcher: Launcher) -> Self {
        Self {
            programs,
            launcher,
            max_time: Duration::from_secs(60),
            max_output_bytes: 64 * 1024,
            max_memory_bytes: Some(1024 * 1024 * 1024),
            max_processes: None,
            max_file_bytes: None,
            max_concurrent: 4,
            allow_network: false,
            require_confinement: true,
            environment: BTreeMap::new(),
            read_paths: Vec::new(),
        }
    }
}

/// Why commands cannot run as the policy demands.
#[derive(Debug, thiserror::Error)]
pub enum CommandSetupError {
    /// The policy allows no program.
    #[error("no program is allowed: name at least one")]
    NoPrograms,
    /// A program that cannot be executed.
    #[error("the program `{name}` cannot be executed: give the absolute path of a file")]
    NotAProgram {
        /// Its name in calls.
        name: String,
    },
    /// The launcher cannot be started.
    #[error("cannot start the launcher of commands")]
    Launcher(#[source] io::Error),
    /// The launcher does not answer as it should.
    #[error("the launcher of commands does not work: {0}")]
    LauncherAnswer(String),
    /// The system has no Landlock.
    #[error("this system cannot confine commands to the workspace: it needs Linux 5.13 with Landlock")]
    NoConfinement,
    /// The network cannot be taken away.
    #[error(
        "this system cannot keep commands from the network: it needs user namespaces, or Linux 6.7 with Landlock"
    )]
    NetworkOpen,
    /// Processes cannot be counted by command.
    #[error("this system cannot limit the processes of a command: it needs user namespaces")]
    ProcessesUnlimited,
}
