//! Paths that try to leave, from the list that the end-to-end tests send over the wire too.

use std::fs;
use std::path::Path;

use gathering_tools::{ListOptions, WorkspaceError, WorkspacePath};

use super::{MANY, inside, names, path, workspace};

/// The cases of a list; see there for its form.
fn cases(list: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(list);
    let text = fs::read_to_string(file).unwrap();
    let cases = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    cases.map(str::to_owned).collect()
}

#[test]
fn every_path_that_leaves_is_rejected_with_the_same_message() {
    let cases = cases("traversal.txt");
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    for case in cases {
        assert!(case.is_ascii(), "{case}");
        let parsed = WorkspacePath::from_percent_encoded(&case);
        assert!(matches!(parsed, Err(WorkspaceError::Escape)), "{case}: {parsed:?}");
        // A path that comes in a JSON text is not decoded, and refused all the same.
        let parsed = case.parse::<WorkspacePath>();
        assert!(matches!(parsed, Err(WorkspaceError::Escape)), "{case} undecoded: {parsed:?}");
    }
}

#[tokio::test]
async fn a_path_that_only_seems_to_leave_reaches_nothing_outside() {
    let (outside, workspace) = workspace().await;
    let mut made = 0;
    for case in cases("lookalikes.txt") {
        let Ok(path) = WorkspacePath::from_percent_encoded(&case) else { continue };
        let read = workspace.read(&path, MANY).await;
        assert!(matches!(read, Err(WorkspaceError::NotFound { .. })), "{case}: {read:?}");
        let listed = workspace.list(&path, ListOptions::recursive()).await;
        assert!(matches!(listed, Err(WorkspaceError::NotFound { .. })), "{case}: {listed:?}");
        assert!(workspace.remove(&path).await.is_err(), "{case}");
        workspace.write(&path, case.clone()).await.unwrap();
        assert_eq!(workspace.read(&path, MANY).await.unwrap().bytes, case.as_bytes());
        let top = path.as_str().split('/').next().unwrap();
        assert!(names(&inside(&outside)).iter().any(|name| name == top), "{case}");
        fs::remove_dir_all(inside(&outside).join(top))
            .or_else(|_| fs::remove_file(inside(&outside).join(top)))
            .unwrap();
        made += 1;
    }
    assert!(made >= 30, "only {made} are names");
    assert_eq!(names(outside.path()), ["inside", "secret"]);
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "s3cret");
}

#[tokio::test]
async fn links_to_outside_lead_nowhere() {
    let (outside, workspace) = workspace().await;
    let root = inside(&outside);
    fs::create_dir_all(root.join("a/b")).unwrap();
    let absolute = outside.path().join("secret");
    let links = [
        ("file", absolute.to_str().unwrap()),
        ("above", "../secret"),
        ("a/above", "../../secret"),
        ("a/b/far", "../../../../../../../../../../etc/passwd"),
        ("directory", ".."),
        ("a/directory", outside.path().to_str().unwrap()),
        ("chain-1", "chain-2"),
        ("chain-2", "a/chain-3"),
        ("a/chain-3", "../chain-4"),
        ("chain-4", "directory/secret"),
        ("by-detour", "a/../../inside/../secret"),
        ("back", "../inside/a"),
        ("loop-1", "loop-2"),
        ("loop-2", "loop-1"),
        ("a/self", "self/x"),
        ("proc", "/proc/self/root"),
        ("cwd", "/proc/self/cwd"),
        ("handles", "/proc/self/fd"),
        ("environment", "/proc/self/environ"),
        ("top", "/"),
        ("new", "../made-by-write"),
        ("new-directory", "../made-by-write/"),
    ];
    for (link, target) in links {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    let beneath = ["", "/secret", "/etc/passwd", "/self/root/etc/passwd", "/x/y"];
    for (link, target) in links {
        for beneath in beneath {
            let text = format!("{link}{beneath}");
            let path = path(&text);
            let escapes = |error: &WorkspaceError| matches!(error, WorkspaceError::Escape);
            let read = workspace.read(&path, MANY).await.unwrap_err();
            assert!(escapes(&read), "read {text} -> {target}: {read:?}");
            let opened = workspace.open_file(&path).await.unwrap_err();
            assert!(escapes(&opened), "open {text} -> {target}: {opened:?}");
            let entry = workspace.entry(&path).await.unwrap_err();
            assert!(escapes(&entry), "entry {text} -> {target}: {entry:?}");
            let written = workspace.write(&path, "x").await.unwrap_err();
            assert!(escapes(&written), "write {text} -> {target}: {written:?}");
            let listed = workspace.list(&path, ListOptions::recursive()).await.unwrap_err();
            assert!(escapes(&listed), "list {text} -> {target}: {listed:?}");
            if !beneath.is_empty() {
                let removed = workspace.remove(&path).await.unwrap_err();
                assert!(escapes(&removed), "remove {text} -> {target}: {removed:?}");
            }
        }
    }
    let listed = workspace.list(&WorkspacePath::root(), ListOptions::recursive()).await.unwrap();
    let listed: Vec<_> = listed.items.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(listed, ["a", "a/b"], "links that lead out are not shown");
    assert_eq!(names(outside.path()), ["inside", "secret"]);
    assert_eq!(fs::read_to_string(absolute).unwrap(), "s3cret");
}
