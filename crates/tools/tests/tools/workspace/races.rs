//! What others do to the directories at the same moment.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use gathering_tools::{ListOptions, Precondition, Workspace, WorkspaceError, WorkspacePath};
use rustix::fs::{CWD, RenameFlags};

use super::{MANY, inside, names, path, workspace};

const ROUNDS: usize = 400;

/// A thread that does something over and over until it is dropped.
struct Meanwhile {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Meanwhile {
    fn do_again(mut work: impl FnMut() + Send + 'static) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    work();
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, rounds, thread: Some(thread) }
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// Exchanges `name`, something real, with a link to `target`, in one step and over and over. What is missing, because
/// somebody removed it, is made again.
fn swapping(root: PathBuf, name: &'static str, target: &'static str, real: fn(&Path)) -> Meanwhile {
    let (here, there) = (root.join(name), root.join("swapped-out"));
    Meanwhile::do_again(move || {
        if rustix::fs::renameat_with(CWD, &here, CWD, &there, RenameFlags::EXCHANGE).is_ok() {
            return;
        }
        for left in [&here, &there] {
            let _ = fs::remove_file(left).or_else(|_| fs::remove_dir_all(left));
        }
        let _ = symlink(target, &there);
        real(&here);
    })
}

/// Reads, lists, writes and removes through `text`; whatever it meets, it is nothing from outside.
async fn everything_stays_inside(workspace: &Workspace, text: &str) {
    if let Ok(content) = workspace.read(&path(text), MANY).await {
        assert!(!content.bytes.starts_with(b"s3cret"), "read {text}");
    }
    if let Ok(file) = workspace.open_file(&path(text)).await
        && let Ok(bytes) = file.read_at(0, 100).await
    {
        assert!(!bytes.starts_with(b"s3cret"), "streamed {text}");
    }
    let _ = workspace.write(&path(text), "planted").await;
    let _ = workspace.write(&path(&format!("{text}/planted")), "planted").await;
    let _ = workspace.write(&path(&format!("{text}/a/b/planted")), "planted").await;
    for directory in [text, ""] {
        if let Ok(listing) = workspace.list(&path(directory), ListOptions::recursive()).await {
            let outside = |path: &WorkspacePath| path.as_str().ends_with("only-outside");
            assert!(
                listing.items.iter().all(|entry| !outside(&entry.path)),
                "listed {directory}: {listing:?}"
            );
        }
    }
    let _ = workspace.remove(&path(text)).await;
    let _ = workspace.remove(&path(&format!("{text}/only-outside"))).await;
}

fn assert_untouched(outside: &tempfile::TempDir) {
    assert_eq!(names(outside.path()), ["inside", "only-outside", "secret"]);
    for file in ["secret", "only-outside"] {
        assert_eq!(fs::read_to_string(outside.path().join(file)).unwrap(), "s3cret", "{file}");
    }
}

#[tokio::test]
async fn a_directory_that_becomes_a_link_to_outside_never_leads_there() {
    let (outside, workspace) = workspace().await;
    fs::write(outside.path().join("only-outside"), "s3cret").unwrap();
    // Others may be quicker at the same place; then the next round makes it.
    let real = |place: &Path| {
        let _ = fs::create_dir(place);
        let _ = fs::write(place.join("mine"), "mine");
    };
    let swapper = swapping(inside(&outside), "d", "..", real);
    for _ in 0..ROUNDS {
        everything_stays_inside(&workspace, "d/secret").await;
        everything_stays_inside(&workspace, "d").await;
    }
    assert!(swapper.rounds() > 20, "only {} swaps", swapper.rounds());
    drop(swapper);
    assert_untouched(&outside);
}

#[tokio::test]
async fn a_file_that_becomes_a_link_to_outside_never_leads_there() {
    let (outside, workspace) = workspace().await;
    fs::write(outside.path().join("only-outside"), "s3cret").unwrap();
    let swapper = swapping(inside(&outside), "f", "../secret", |place| drop(fs::write(place, "mine")));
    for _ in 0..ROUNDS {
        everything_stays_inside(&workspace, "f").await;
    }
    assert!(swapper.rounds() > 20, "only {} swaps", swapper.rounds());
    drop(swapper);
    assert_untouched(&outside);
}

#[tokio::test]
async fn a_file_that_becomes_a_pipe_does_not_block_a_reader() {
    let (outside, workspace) = workspace().await;
    let root = inside(&outside);
    let pipe = |next: &Path| {
        let made = std::process::Command::new("mkfifo").arg(next).status().unwrap();
        assert!(made.success());
    };
    pipe(&root.join("pipe"));
    for refused in [
        workspace.read(&path("pipe"), MANY).await.err(),
        workspace.open_file(&path("pipe")).await.err(),
        workspace.write(&path("pipe"), "x").await.err(),
    ] {
        assert!(matches!(refused, Some(WorkspaceError::NotAFile { .. })), "{refused:?}");
    }
    fs::write(root.join("f"), "mine").unwrap();
    let (pipe, file) = (root.join("pipe"), root.join("f"));
    let swapper = Meanwhile::do_again({
        let (pipe, file) = (pipe.clone(), file.clone());
        move || rustix::fs::renameat_with(CWD, &pipe, CWD, &file, RenameFlags::EXCHANGE).unwrap()
    });
    let reads = async {
        for _ in 0..ROUNDS * 10 {
            let _ = workspace.read(&path("f"), MANY).await;
        }
    };
    let waits = tokio::time::timeout(std::time::Duration::from_secs(20), reads).await.is_err();
    drop(swapper);
    // Unblocks a waiting reader, so that the test ends.
    let _released = [&pipe, &file].map(|name| fs::OpenOptions::new().read(true).write(true).open(name));
    assert!(!waits, "a read waits for the other end of a pipe");
}

#[tokio::test]
async fn exactly_one_of_many_concurrent_conditional_writes_wins() {
    let (outside, workspace) = workspace().await;
    let file = path("notes.md");
    let first = workspace.write(&file, "0").await.unwrap();
    let mut races = tokio::task::JoinSet::new();
    for writer in 0..16_u8 {
        // As two processes: each with a handle of its own.
        let other = Workspace::open(inside(&outside), gathering_tools::BlockingPool::new(1)).await.unwrap();
        let (file, version) = (file.clone(), first.version.clone());
        races.spawn(async move {
            let replaced = other.write_if(&file, vec![writer], Precondition::Version(vec![version])).await;
            let created = other.write_if(&path("new"), vec![writer], Precondition::Absent).await;
            [(replaced, writer), (created, writer)]
        });
    }
    let (mut replaced_by, mut created_by) = (Vec::new(), Vec::new());
    for results in races.join_all().await {
        for ((result, writer), winners) in results.into_iter().zip([&mut replaced_by, &mut created_by]) {
            match result {
                Ok(_) => winners.push(writer),
                Err(error) => {
                    assert!(matches!(error, WorkspaceError::PreconditionFailed { .. }), "{error:?}")
                }
            }
        }
    }
    assert_eq!((replaced_by.len(), created_by.len()), (1, 1));
    assert_eq!(workspace.read(&file, MANY).await.unwrap().bytes, replaced_by);
    assert_eq!(workspace.read(&path("new"), MANY).await.unwrap().bytes, created_by);
}

#[tokio::test]
async fn a_counter_raised_by_concurrent_conditional_writes_loses_no_increment() {
    let (_outside, workspace) = workspace().await;
    let file = path("counter");
    workspace.write(&file, "0").await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (workspace, file) = (workspace.clone(), file.clone());
        writers.spawn(async move {
            let mut raised = 0;
            while raised < 25 {
                let current = workspace.read(&file, MANY).await.unwrap();
                let count: u32 = String::from_utf8(current.bytes).unwrap().parse().unwrap();
                let if_same = Precondition::Version(vec![current.version]);
                match workspace.write_if(&file, (count + 1).to_string(), if_same).await {
                    Ok(_) => raised += 1,
                    Err(WorkspaceError::PreconditionFailed { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    writers.join_all().await;
    assert_eq!(workspace.read(&file, MANY).await.unwrap().bytes, b"100");
}

#[tokio::test]
async fn a_write_recreates_its_directory_when_another_removes_it() {
    let (_outside, workspace) = workspace().await;
    let writer = {
        let workspace = workspace.clone();
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                workspace.write(&path("d/f"), "x").await.unwrap();
                workspace.remove(&path("d/f")).await.unwrap();
            }
        })
    };
    while !writer.is_finished() {
        let _ = workspace.remove(&path("d")).await;
    }
    writer.await.unwrap();
}
