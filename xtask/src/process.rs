//! Runs programs and leaves none of them behind.
//!
//! Owns the signals of this process: an interrupt ends the program that is running, with all of its children, and
//! then this process the ordinary way, so that databases are stopped and directories deleted.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::Pid;

/// The process group of the program that is running; 0 when there is none.
static RUNNING: AtomicI32 = AtomicI32::new(0);

/// The signal that interrupted this process; 0 when there was none.
static INTERRUPTED: AtomicI32 = AtomicI32::new(0);

/// Routes interrupts through this module. Call it before any thread is started; repeating it is harmless.
pub(crate) fn catch_interrupts() -> Result<()> {
    static ONCE: AtomicBool = AtomicBool::new(false);
    if ONCE.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let signals = interrupts();
    signals.thread_block().context("block signals")?;
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            let is_first = INTERRUPTED.swap(signal as i32, Ordering::SeqCst) == 0;
            let group = RUNNING.load(Ordering::SeqCst);
            if group != 0 {
                // SIGTERM whatever came: a program started in the background may ignore SIGINT.
                signal_group(group, if is_first { Signal::SIGTERM } else { Signal::SIGKILL });
            }
        }
    });
    Ok(())
}

fn interrupts() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Starts a program in a process group of its own, so that an interrupt in the terminal reaches it through us alone.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    let what = describe(command);
    // A program inherits the signals that are blocked, and then nothing but SIGKILL would end it. An interrupt in this
    // very moment ends us at once; the next run clears away what is left.
    let signals = interrupts();
    signals.thread_unblock().context("unblock signals")?;
    let child = command.stdin(Stdio::null()).process_group(0).spawn();
    signals.thread_block().context("block signals")?;
    child.with_context(|| format!("cannot run `{what}`"))
}

/// The exit code after an interrupt, if there was one.
pub(crate) fn exit_code_after_interrupt() -> Option<u8> {
    let signal = INTERRUPTED.load(Ordering::SeqCst);
    (signal != 0).then(|| u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// Whether this process was interrupted.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst) != 0
}

/// Runs a program to its end; fails unless it succeeds. An interrupt ends it with everything that it has started.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    complete(command).map(drop)
}

/// As [`run`], and returns what the program printed to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let printed = complete(command.stdout(Stdio::piped()))?;
    String::from_utf8(printed).with_context(|| format!("`{}` did not print text", describe(command)))
}

fn complete(command: &mut Command) -> Result<Vec<u8>> {
    let what = describe(command);
    fail_if_interrupted()?;
    let child = spawn(command)?;
    let group = i32::try_from(child.id())?;
    RUNNING.store(group, Ordering::SeqCst);
    // The signal may have come between the check and the note.
    if is_interrupted() {
        signal_group(group, Signal::SIGTERM);
    }
    let ended = child.wait_with_output();
    RUNNING.store(0, Ordering::SeqCst);
    fail_if_interrupted()?;
    let ended = ended.with_context(|| format!("cannot wait for `{what}`"))?;
    if !ended.status.success() {
        bail!("`{what}` failed ({})", ended.status);
    }
    Ok(ended.stdout)
}

/// Sends a child SIGTERM, so that it can clean up.
pub(crate) fn terminate(child: &Child) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM).context("signal a child")
}

fn signal_group(group: i32, signal: Signal) {
    if let Err(error) = killpg(Pid::from_raw(group), signal)
        && error != Errno::ESRCH
    {
        eprintln!("cannot signal the process group {group}: {error}");
    }
}

fn fail_if_interrupted() -> Result<()> {
    if is_interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = command.get_program();
    let name = std::path::Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}
