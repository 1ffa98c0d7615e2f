//! Files read and written piece by piece.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use gathering_tools::{BlockingPool, Precondition, Workspace, WorkspaceError};

use super::{MANY, inside, names, path, workspace};

/// Everything beneath the workspace's root, hidden or not.
fn everything(outside: &tempfile::TempDir) -> Vec<String> {
    names(&inside(outside))
}

#[tokio::test]
async fn a_file_uploaded_in_parts_is_read_in_parts() {
    let (outside, workspace) = workspace().await;
    let mut upload = workspace.begin_write(&path("a/b/big"), Precondition::None, MANY).await.unwrap();
    let mut expected = Vec::new();
    for piece in 0..100_u8 {
        let bytes = vec![piece; usize::from(piece) * 7];
        expected.extend_from_slice(&bytes);
        upload.append(Bytes::from(bytes)).await.unwrap();
        assert_eq!(upload.size_bytes(), expected.len() as u64);
    }
    assert_eq!(everything(&outside), [""; 0], "not even its directory is there yet");
    let written = upload.commit().await.unwrap();
    assert!(written.created);

    let file = workspace.open_file(&path("a/b/big")).await.unwrap();
    assert_eq!((file.size_bytes(), file.version()), (expected.len() as u64, written.version));
    let mut read = Vec::new();
    loop {
        let bytes = file.read_at(read.len() as u64, 1000).await.unwrap();
        if bytes.is_empty() {
            break;
        }
        read.extend_from_slice(&bytes);
    }
    assert!(read == expected);
    assert_eq!(&file.read_at(7, 3).await.unwrap()[..], &expected[7..10]);
    assert!(file.read_at(u64::MAX, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dropped_upload_leaves_nothing_behind() {
    let (outside, workspace) = workspace().await;
    workspace.write(&path("kept"), "old").await.unwrap();
    for name in ["kept", "new", "new/deep/er"] {
        let mut upload = workspace.begin_write(&path(name), Precondition::None, MANY).await.unwrap();
        upload.append(Bytes::from_static(b"half")).await.unwrap();
        assert_eq!(
            everything(&outside),
            ["kept"],
            "nobody sees it, and a process that is killed leaves nothing"
        );
        drop(upload);
    }
    assert_eq!(everything(&outside), ["kept"]);
    assert_eq!(workspace.read(&path("kept"), MANY).await.unwrap().bytes, b"old");
}

#[tokio::test]
async fn an_upload_that_grows_too_large_fails_and_leaves_nothing() {
    let (outside, workspace) = workspace().await;
    let mut upload = workspace.begin_write(&path("f"), Precondition::None, 10).await.unwrap();
    upload.append(Bytes::from_static(b"0123456789")).await.unwrap();
    let refused = upload.append(Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(WorkspaceError::TooLarge { limit_bytes: 10 })), "{refused:?}");
    assert!(upload.commit().await.is_err(), "a part is missing");
    assert_eq!(everything(&outside), [""; 0]);

    let mut upload = workspace.begin_write(&path("f"), Precondition::None, 10).await.unwrap();
    upload.append(Bytes::from_static(b"0123456789")).await.unwrap();
    upload.commit().await.unwrap();
}

#[tokio::test]
async fn an_open_file_keeps_its_content() {
    let (_outside, workspace) = workspace().await;
    let file = path("f");
    workspace.write(&file, "first").await.unwrap();
    let opened = workspace.open_file(&file).await.unwrap();
    workspace.write(&file, "second, and longer").await.unwrap();
    assert_eq!(&opened.read_at(0, 100).await.unwrap()[..], b"first");
    workspace.remove(&file).await.unwrap();
    assert_eq!(&opened.read_at(0, 100).await.unwrap()[..], b"first");
}

#[tokio::test]
async fn a_file_truncated_in_place_is_an_error_and_not_a_short_file() {
    let (outside, workspace) = workspace().await;
    workspace.write(&path("f"), vec![1; 1000]).await.unwrap();
    let opened = workspace.open_file(&path("f")).await.unwrap();
    fs::OpenOptions::new().write(true).open(inside(&outside).join("f")).unwrap().set_len(10).unwrap();
    assert!(matches!(opened.read_at(0, 1000).await, Err(WorkspaceError::Io { .. })));
}

#[tokio::test]
async fn the_precondition_decides_at_the_end() {
    let (_outside, workspace) = workspace().await;
    let file = path("f");
    let first = workspace.write(&file, "1").await.unwrap();
    let if_first = || Precondition::Version(vec![first.version.clone()]);
    let mut slow = workspace.begin_write(&file, if_first(), MANY).await.unwrap();
    let mut slower = workspace.begin_write(&path("new"), Precondition::Absent, MANY).await.unwrap();
    slow.append(Bytes::from_static(b"slow")).await.unwrap();
    slower.append(Bytes::from_static(b"slow")).await.unwrap();
    workspace.write_if(&file, "2", if_first()).await.unwrap();
    workspace.write(&path("new"), "2").await.unwrap();
    for late in [slow, slower] {
        let refused = late.commit().await;
        assert!(matches!(refused, Err(WorkspaceError::PreconditionFailed { .. })), "{refused:?}");
    }
    assert_eq!(workspace.read(&file, MANY).await.unwrap().bytes, b"2");
    assert_eq!(workspace.read(&path("new"), MANY).await.unwrap().bytes, b"2");
    let early = workspace.begin_write(&file, if_first(), MANY).await;
    assert!(matches!(early, Err(WorkspaceError::PreconditionFailed { .. })), "before anything is sent");
}

#[tokio::test]
async fn a_conditional_removal_checks_its_precondition() {
    let (_outside, workspace) = workspace().await;
    let file = path("d/f");
    let first = workspace.write(&file, "1").await.unwrap();
    let second = workspace.write(&file, "2").await.unwrap();
    let of = |written: &gathering_tools::Written| Precondition::Version(vec![written.version.clone()]);
    for refused in [of(&first), Precondition::Absent] {
        let removed = workspace.remove_if(&file, refused).await;
        assert!(matches!(removed, Err(WorkspaceError::PreconditionFailed { .. })), "{removed:?}");
    }
    workspace.remove_if(&file, of(&second)).await.unwrap();
    let again = workspace.remove_if(&file, of(&second)).await;
    assert!(matches!(again, Err(WorkspaceError::NotFound { .. })), "{again:?}");
    workspace.remove_if(&path("d"), Precondition::Present).await.unwrap();
}

#[tokio::test]
async fn each_write_creates_a_new_version_however_fast() {
    let (outside, workspace) = workspace().await;
    let file = path("f");
    let mut versions = std::collections::HashSet::new();
    for _ in 0..200 {
        // Removing it in between lets the file system use the same inode again.
        let written = workspace.write(&file, "same").await.unwrap();
        assert!(versions.insert(written.version.clone()), "{written:?}");
        assert_eq!(workspace.entry(&file).await.unwrap().version, written.version);
        workspace.remove(&file).await.unwrap();
    }
    // A program that puts the old time back does not deceive anybody.
    let written = workspace.write(&file, "same").await.unwrap();
    let changed = fs::OpenOptions::new().write(true).open(inside(&outside).join("f")).unwrap();
    let modified = changed.metadata().unwrap().modified().unwrap();
    std::io::Write::write_all(&mut &changed, b"else").unwrap();
    changed.set_modified(modified).unwrap();
    assert_ne!(workspace.entry(&file).await.unwrap().version, written.version);
}

#[tokio::test]
async fn a_replaced_file_keeps_its_permissions() {
    let (outside, workspace) = workspace().await;
    let script = inside(&outside).join("run.sh");
    workspace.write(&path("run.sh"), "old").await.unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o4750)).unwrap();
    workspace.write(&path("run.sh"), "new").await.unwrap();
    let mode = fs::metadata(&script).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o750, "but not that it runs as its owner");
}

#[tokio::test]
async fn new_entries_are_private_and_existing_ones_keep_their_permissions() {
    let outside = tempfile::tempdir().unwrap();
    let mode = |at: &std::path::Path| fs::metadata(at).unwrap().permissions().mode() & 0o777;
    let made = outside.path().join("above/made");
    let workspace = Workspace::open(&made, BlockingPool::new(2)).await.unwrap();
    workspace.write(&path("a/b.txt"), "private").await.unwrap();
    let mut upload = workspace.begin_write(&path("up.txt"), Precondition::None, MANY).await.unwrap();
    upload.append(Bytes::from_static(b"private")).await.unwrap();
    upload.commit().await.unwrap();
    assert_eq!(mode(&made), 0o700);
    assert_eq!(mode(&made.join("a")), 0o700);
    assert_eq!((mode(&made.join("a/b.txt")), mode(&made.join("up.txt"))), (0o600, 0o600));

    let theirs = outside.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o751)).unwrap();
    fs::write(theirs.join("shared.txt"), "shared").unwrap();
    fs::set_permissions(theirs.join("shared.txt"), fs::Permissions::from_mode(0o664)).unwrap();
    let workspace = Workspace::open(&theirs, BlockingPool::new(2)).await.unwrap();
    workspace.write(&path("shared.txt"), "changed").await.unwrap();
    workspace.write(&path("new.txt"), "private").await.unwrap();
    assert_eq!((mode(&theirs), mode(&theirs.join("shared.txt"))), (0o751, 0o664));
    assert_eq!(mode(&theirs.join("new.txt")), 0o600);
}

#[tokio::test]
async fn the_remains_of_a_killed_write_block_nobody() {
    let (outside, workspace) = workspace().await;
    workspace.write(&path("d/f"), "old").await.unwrap();
    let left = inside(&outside).join("d/.gathering-unfinished-replacing");
    fs::write(&left, "half").unwrap();
    workspace.write(&path("d/f"), "new").await.unwrap();
    assert_eq!(names(&inside(&outside).join("d")), ["f"]);
    fs::write(&left, "half").unwrap();
    workspace.remove(&path("d/f")).await.unwrap();
    workspace.remove(&path("d")).await.unwrap();
    assert_eq!(everything(&outside), [""; 0]);
}
