//! Reading, writing, removing, listing, and what is refused.

use std::os::unix::fs::symlink;

use gathering_tools::{EntryKind, ListOptions, Precondition, Workspace, WorkspaceError, WorkspacePath};

use super::{MANY, inside, names, path, workspace};

#[tokio::test]
async fn a_written_file_is_read_back_and_parents_are_created() {
    let (outside, workspace) = workspace().await;
    let written = workspace.write(&path("a/b/c.md"), b"one".to_vec()).await.unwrap();
    assert!(written.created);
    let again = workspace.write(&path("a/b/c.md"), b"two!".to_vec()).await.unwrap();
    assert!(!again.created);
    assert_ne!(written.version, again.version);
    let content = workspace.read(&path("a/b/c.md"), MANY).await.unwrap();
    assert_eq!((&content.bytes[..], &content.version), (&b"two!"[..], &again.version));
    assert_eq!(names(&inside(&outside).join("a/b")), ["c.md"], "no unfinished file stays");
}

#[tokio::test]
async fn links_that_lead_out_are_rejected_by_every_operation() {
    let (outside, workspace) = workspace().await;
    let root = inside(&outside);
    symlink(outside.path().join("secret"), root.join("absolute")).unwrap();
    symlink("../secret", root.join("relative")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/", root.join("top")).unwrap();
    symlink("relative", root.join("chain")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("../made-by-write", root.join("dangling")).unwrap();
    for text in ["absolute", "relative", "up/secret", "top/etc/passwd", "chain", "loop", "up/new", "dangling"]
    {
        let path = path(text);
        let read = workspace.read(&path, MANY).await.unwrap_err();
        assert!(matches!(read, WorkspaceError::Escape), "read {text}: {read:?}");
        assert_eq!(read.to_string(), "the path is outside of the workspace");
        let write = workspace.write(&path, b"x".to_vec()).await.unwrap_err();
        assert!(matches!(write, WorkspaceError::Escape), "write {text}: {write:?}");
        let entry = workspace.entry(&path).await.unwrap_err();
        assert!(matches!(entry, WorkspaceError::Escape), "entry {text}: {entry:?}");
    }
    for text in ["up", "top", "up/inside"] {
        let list = workspace.list(&path(text), ListOptions::recursive()).await.unwrap_err();
        assert!(matches!(list, WorkspaceError::Escape), "list {text}: {list:?}");
        let write = workspace.write(&path(&format!("{text}/x/y")), b"x".to_vec()).await.unwrap_err();
        assert!(matches!(write, WorkspaceError::Escape), "write {text}: {write:?}");
        let remove = workspace.remove(&path(&format!("{text}/secret"))).await.unwrap_err();
        assert!(matches!(remove, WorkspaceError::Escape), "remove {text}: {remove:?}");
    }
    let listed = workspace.list(&WorkspacePath::root(), ListOptions::recursive()).await.unwrap();
    assert!(listed.items.is_empty(), "{listed:?}");
    assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "s3cret");
    assert_eq!(names(outside.path()), ["inside", "secret"]);
    // The link itself is inside, so it can be removed.
    workspace.remove(&path("absolute")).await.unwrap();
    assert!(outside.path().join("secret").exists());
}

#[tokio::test]
async fn links_that_stay_inside_are_followed_by_reads_and_replaced_by_writes() {
    let (outside, workspace) = workspace().await;
    workspace.write(&path("a/real"), b"real".to_vec()).await.unwrap();
    symlink("a/real", inside(&outside).join("link")).unwrap();
    symlink("a", inside(&outside).join("directory")).unwrap();
    assert_eq!(workspace.read(&path("link"), MANY).await.unwrap().bytes, b"real");
    assert_eq!(workspace.read(&path("directory/real"), MANY).await.unwrap().bytes, b"real");
    workspace.write(&path("link"), b"new".to_vec()).await.unwrap();
    assert_eq!(workspace.read(&path("a/real"), MANY).await.unwrap().bytes, b"real");
    assert_eq!(workspace.read(&path("link"), MANY).await.unwrap().bytes, b"new");
}

#[tokio::test]
async fn excluded_names_are_left_out_with_everything_below_them() {
    let (_outside, workspace) = workspace().await;
    for file in ["a.md", "target/b.md", "src/c.md", "src/target/d.md"] {
        workspace.write(&path(file), b"x".to_vec()).await.unwrap();
    }
    let options = ListOptions::recursive().matching("*.md").excluding(vec!["target".to_owned()]);
    let listing = workspace.list(&WorkspacePath::root(), options).await.unwrap();
    let paths: Vec<_> = listing.items.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["a.md", "src/c.md"]);
}

#[tokio::test]
async fn a_closed_part_is_unreachable_by_name_and_through_links() {
    let (outside, workspace) = workspace().await;
    let root = inside(&outside);
    std::fs::create_dir_all(root.join("closed/deep")).unwrap();
    std::fs::write(root.join("closed/key"), "s3cret").unwrap();
    std::fs::write(root.join("open"), "open").unwrap();
    symlink("closed", root.join("link")).unwrap();
    symlink("closed/key", root.join("link_to_key")).unwrap();
    let workspace = workspace.without(path("closed"));
    for there in [
        "closed",
        "closed/key",
        "closed/new",
        "link/key",
        "link/new",
        "link/deep/newer",
        "link_to_key",
        "./closed/key",
    ] {
        let there = path(there);
        assert!(matches!(workspace.read(&there, MANY).await, Err(WorkspaceError::Escape)), "read {there}");
        assert!(
            matches!(workspace.write(&there, b"x".to_vec()).await, Err(WorkspaceError::Escape)),
            "write {there}"
        );
        assert!(
            matches!(workspace.list(&there, ListOptions::flat()).await, Err(WorkspaceError::Escape)),
            "list {there}"
        );
        assert!(matches!(workspace.remove(&there).await, Err(WorkspaceError::Escape)), "remove {there}");
    }
    assert_eq!(workspace.read(&path("open"), MANY).await.unwrap().bytes, b"open");
    let listing = workspace.list(&WorkspacePath::root(), ListOptions::recursive()).await.unwrap();
    assert!(listing.items.iter().all(|entry| !entry.path.as_str().starts_with("closed")), "{listing:?}");
    assert_eq!(std::fs::read_to_string(root.join("closed/key")).unwrap(), "s3cret");
}

#[tokio::test]
async fn a_conditional_write_checks_its_precondition() {
    let (_outside, workspace) = workspace().await;
    let file = path("notes.md");
    let absent = workspace.write_if(&file, b"1".to_vec(), Precondition::Present).await;
    assert!(matches!(absent, Err(WorkspaceError::PreconditionFailed { .. })), "{absent:?}");
    let first = workspace.write_if(&file, b"1".to_vec(), Precondition::Absent).await.unwrap();
    let second = workspace.write_if(&file, b"2".to_vec(), Precondition::Absent).await;
    assert!(matches!(second, Err(WorkspaceError::PreconditionFailed { .. })), "{second:?}");
    let known = Precondition::Version(vec![first.version.clone()]);
    workspace.write_if(&file, b"2".to_vec(), known.clone()).await.unwrap();
    let stale = workspace.write_if(&file, b"3".to_vec(), known).await;
    assert!(matches!(stale, Err(WorkspaceError::PreconditionFailed { .. })), "{stale:?}");
    assert_eq!(workspace.read(&file, MANY).await.unwrap().bytes, b"2");
}

#[tokio::test]
async fn exactly_one_of_many_concurrent_conditional_writes_wins() {
    let (_outside, workspace) = workspace().await;
    let file = path("notes.md");
    let first = workspace.write(&file, b"0".to_vec()).await.unwrap();
    let writes = (1..=16).map(|writer: u8| {
        let (workspace, file, version) = (workspace.clone(), file.clone(), first.version.clone());
        tokio::spawn(async move {
            workspace.write_if(&file, vec![writer], Precondition::Version(vec![version])).await
        })
    });
    let mut won = 0;
    for write in writes.collect::<Vec<_>>() {
        match write.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, WorkspaceError::PreconditionFailed { .. }), "{error:?}"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_reader_sees_the_old_or_the_new_content_and_never_a_part() {
    let (_outside, workspace) = workspace().await;
    let file = path("big");
    workspace.write(&file, vec![0; 100_000]).await.unwrap();
    let writer = tokio::spawn({
        let (workspace, file) = (workspace.clone(), file.clone());
        async move {
            for byte in 1..20 {
                workspace.write(&file, vec![byte; 100_000]).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let bytes = workspace.read(&file, MANY).await.unwrap().bytes;
        assert!(bytes.len() == 100_000 && bytes.iter().all(|byte| *byte == bytes[0]));
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn lists_are_sorted_bounded_and_without_unfinished_files() {
    let (outside, workspace) = workspace().await;
    for file in ["b.md", "a/z.md", "a/b.txt", "a/deep/x.md", "c.txt"] {
        workspace.write(&path(file), b"12345".to_vec()).await.unwrap();
    }
    std::fs::write(inside(&outside).join(".gathering-unfinished-1"), "half").unwrap();
    let list = async |from: &str, options| {
        let listing = workspace.list(&path(from), options).await.unwrap();
        let paths: Vec<String> = listing.items.iter().map(|entry| entry.path.to_string()).collect();
        (paths.join(" "), listing.next.is_some())
    };
    assert_eq!(list("", ListOptions::flat()).await, ("a b.md c.txt".to_owned(), false));
    let all = "a a/b.txt a/deep a/deep/x.md a/z.md b.md c.txt";
    assert_eq!(list(".", ListOptions::recursive()).await, (all.to_owned(), false));
    assert_eq!(list("", ListOptions::recursive().limit(2)).await, ("a a/b.txt".to_owned(), true));
    let matching = |pattern| ListOptions::recursive().matching(pattern);
    assert_eq!(list("", matching("*.md")).await, ("a/deep/x.md a/z.md b.md".to_owned(), false));
    assert_eq!(list("a", matching("deep/*")).await, ("a/deep/x.md".to_owned(), false));
    let entry = workspace.entry(&path("a/b.txt")).await.unwrap();
    assert_eq!((entry.kind, entry.size_bytes), (EntryKind::File, 5));
}

#[tokio::test]
async fn wrong_kinds_and_sizes_have_distinct_errors() {
    let (outside, workspace) = workspace().await;
    workspace.write(&path("d/f"), b"12345".to_vec()).await.unwrap();
    assert!(matches!(
        workspace.read(&path("d/f"), 4).await,
        Err(WorkspaceError::TooLarge { limit_bytes: 4 })
    ));
    assert!(matches!(workspace.read(&path("d"), MANY).await, Err(WorkspaceError::NotAFile { .. })));
    assert!(matches!(workspace.read(&path("x/y"), MANY).await, Err(WorkspaceError::NotFound { .. })));
    assert!(matches!(workspace.write(&path("d"), vec![]).await, Err(WorkspaceError::NotAFile { .. })));
    assert!(matches!(
        workspace.write(&WorkspacePath::root(), vec![]).await,
        Err(WorkspaceError::NotAFile { .. })
    ));
    assert!(matches!(
        workspace.write(&path("d/f/g"), vec![]).await,
        Err(WorkspaceError::NotADirectory { .. })
    ));
    let list = workspace.list(&path("d/f"), ListOptions::flat()).await;
    assert!(matches!(list, Err(WorkspaceError::NotADirectory { .. })), "{list:?}");
    assert!(matches!(workspace.remove(&path("d")).await, Err(WorkspaceError::NotEmpty { .. })));
    assert!(workspace.remove(&WorkspacePath::root()).await.is_err());
    workspace.remove(&path("d/f")).await.unwrap();
    workspace.remove(&path("d")).await.unwrap();
    assert!(names(&inside(&outside)).is_empty());
}

#[tokio::test]
async fn a_failed_write_leaves_the_old_content_and_no_unfinished_file() {
    let (outside, workspace) = workspace().await;
    workspace.write(&path("f"), b"old".to_vec()).await.unwrap();
    let too_large = vec![0; usize::try_from(Workspace::MAX_FILE_BYTES).unwrap() + 1];
    assert!(matches!(workspace.write(&path("f"), too_large).await, Err(WorkspaceError::TooLarge { .. })));
    let long = path(&"x".repeat(255));
    workspace.write(&long, b"fits".to_vec()).await.unwrap();
    assert_eq!(workspace.read(&path("f"), MANY).await.unwrap().bytes, b"old");
    assert_eq!(names(&inside(&outside)).len(), 2);
}
