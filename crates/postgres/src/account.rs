//! The operating system user that runs the cluster.
//!
//! Owns the choice of the user, and runs commands as that user. PostgreSQL refuses to run as root, so root uses an
//! unprivileged user. All other users run the cluster themselves.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use crate::ClusterError;

/// The user that owns the cluster's files and runs its processes.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
    name: String,
    /// Whether this process is root and has to switch to that user.
    switches: bool,
}

impl Account {
    /// Chooses the user for the cluster in `cluster_dir`: the directory's owner if it exists.
    pub(crate) fn choose(cluster_dir: &Path) -> Result<Account, ClusterError> {
        let current = geteuid();
        let owner = fs::metadata(cluster_dir).ok().map(|found| found.uid());
        if !current.is_root() {
            return match owner {
                Some(owner) if owner != current.as_raw() => Err(ClusterError::ForeignOwner {
                    cluster_dir: cluster_dir.to_path_buf(),
                    owner,
                    current: current.as_raw(),
                }),
                _ => Ok(Account::own(current)),
            };
        }
        let of_cluster =
            owner.filter(|uid| *uid != 0).and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
        of_cluster
            .or_else(|| named("postgres"))
            .or_else(|| named("nobody"))
            .map(Account::other)
            .ok_or(ClusterError::NoServerUser)
    }

    fn own(uid: Uid) -> Account {
        Account {
            uid: uid.as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            name: uid.to_string(),
            switches: false,
        }
    }

    fn other(user: User) -> Account {
        Account { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name, switches: true }
    }

    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether files that this process creates must be handed over to the account.
    pub(crate) fn is_other(&self) -> bool {
        self.switches
    }

    /// A command that runs as this user, in `current_dir`, without the caller's PostgreSQL settings.
    pub(crate) fn command(&self, program: &Path, current_dir: &Path) -> Command {
        let mut command = Command::new(program);
        forget_postgres_settings(&mut command);
        command.env("LC_ALL", "C").current_dir(current_dir);
        if self.switches {
            // This also drops root's supplementary groups. The standard library changes the user before it changes the
            // directory, so the kernel checks the directory for the user and not for root.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Whether the user can enter `directory`. Tries to enter it as that user, so the kernel decides.
    pub(crate) fn can_enter(&self, directory: &Path) -> bool {
        if !self.switches {
            return true;
        }
        // Whether a shell exists does not matter: the directory is entered before the program is looked up.
        let entered = self.command(Path::new("/bin/sh"), directory).args(["-c", "exit 0"]).status();
        !entered.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    }

    /// Gives `path` to the user.
    pub(crate) fn own_path(&self, path: &Path) -> Result<(), ClusterError> {
        if !self.switches {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid)).map_err(ClusterError::io("change the owner of", path))
    }
}

/// Removes the variables that would direct libpq and the server tools to another server or cluster.
pub(crate) fn forget_postgres_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
}

fn named(name: &str) -> Option<User> {
    User::from_name(name).ok().flatten().filter(|user| !user.uid.is_root())
}
