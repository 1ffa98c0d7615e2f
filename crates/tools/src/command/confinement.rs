//! What keeps a program in: Landlock for files and TCP, namespaces for the network and for its processes.
//!
//! These are calls by which a process confines itself, so only the launcher makes them.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{getgid, getuid};
use serde::{Deserialize, Serialize};

/// The newest rights that are taken away; an older kernel knows fewer of them.
const FILES: ABI = ABI::V5;

/// What programs and their libraries are made of.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// Settings of the system that programs read. Not all of `/etc`: it may hold secrets.
const SETTINGS: [&str; 14] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/ssl",
];

const DEVICES_TO_READ: [&str; 2] = ["/dev/random", "/dev/urandom"];
const DEVICES_TO_WRITE: [&str; 2] = ["/dev/null", "/dev/zero"];

/// What this system has to confine programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Landlock: no file outside the workspace is written, and none but those of the system is read.
    pub files: bool,
    /// Namespaces: no network of any kind, and every process of a command ends with it.
    pub namespaces: bool,
    /// Landlock keeps programs from TCP.
    pub tcp: bool,
}

/// How a program is kept from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NetworkAccess {
    /// It is not.
    Open,
    /// It cannot use TCP.
    NoTcp,
    /// It has no network.
    None,
}

impl NetworkAccess {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            NetworkAccess::Open => "open",
            NetworkAccess::NoTcp => "no_tcp",
            NetworkAccess::None => "none",
        }
    }
}

impl Confinement {
    /// Tries everything. This process is of no other use afterwards.
    pub(super) fn probe() -> Self {
        let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let files = strict().handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create);
        let tcp = strict().handle_access(AccessNet::from_all(ABI::V4)).and_then(Ruleset::create);
        Self { files: files.is_ok(), namespaces: enter_namespaces(false).is_ok(), tcp: tcp.is_ok() }
    }
}

/// Enters new namespaces for users and processes, and one without a network unless it is wanted. The next child is the
/// first process of its namespace: all others in it end when it ends.
pub(super) fn enter_namespaces(with_network: bool) -> io::Result<()> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let network = if with_network { CloneFlags::empty() } else { CloneFlags::CLONE_NEWNET };
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID | network)?;
    // The account stays what it is, as far as the program can see.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Takes away this process's access to files outside the workspace, and to TCP if wanted.
pub(super) fn restrict(
    workspace: &Path,
    program: &Path,
    read_paths: &[PathBuf],
    network: NetworkAccess,
) -> Result<(), String> {
    let status = ruleset(workspace, program, read_paths, network).map_err(|error| error.to_string())?;
    match status {
        RulesetStatus::NotEnforced => Err("Landlock is not enforced".to_owned()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn ruleset(
    workspace: &Path,
    program: &Path,
    read_paths: &[PathBuf],
    network: NetworkAccess,
) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(FILES);
    let read = AccessFs::from_read(FILES);
    let write: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile;
    let mut rules = Ruleset::default().handle_access(all)?;
    if network == NetworkAccess::NoTcp {
        let strict = rules.set_compatibility(CompatLevel::HardRequirement);
        rules =
            strict.handle_access(AccessNet::from_all(ABI::V4))?.set_compatibility(CompatLevel::BestEffort);
    }
    // No signals to processes outside, where the kernel knows this.
    let rules = rules.scope(Scope::from_all(ABI::V6))?.create()?;
    let rules = rules
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(SETTINGS, read))?
        .add_rules(path_beneath_rules(DEVICES_TO_READ, read))?
        .add_rules(path_beneath_rules(DEVICES_TO_WRITE, write))?
        .add_rules(path_beneath_rules([program], read))?
        .add_rules(path_beneath_rules(read_paths, read))?
        .add_rules(path_beneath_rules([workspace], all))?;
    Ok(rules.restrict_self()?.ruleset)
}
