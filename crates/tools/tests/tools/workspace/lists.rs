//! Lists in pages, and what is remembered of directories.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use gathering_tools::{BlockingPool, DirectoryCache, ListOptions, Workspace, WorkspacePath};
use tempfile::TempDir;

use super::{inside, path, workspace};

async fn listed(workspace: &Workspace, directory: &str) -> Vec<String> {
    let listing = workspace.list(&path(directory), ListOptions::recursive()).await.unwrap();
    listing.items.iter().map(|entry| format!("{}:{}", entry.path, entry.size_bytes)).collect()
}

/// A second workspace on the same directory, as another process has it.
async fn elsewhere(outside: &TempDir) -> Workspace {
    Workspace::open(inside(outside), BlockingPool::new(2)).await.unwrap()
}

/// Waits until the directory was last changed so long ago that it is remembered.
async fn settle(directory: &Path) {
    loop {
        let changed = std::os::unix::fs::MetadataExt::ctime(&fs::metadata(directory).unwrap());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        if now >= u64::try_from(changed).unwrap() + 3 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn pages_contain_every_entry_once_and_in_order() {
    let (_outside, workspace) = workspace().await;
    for file in ["a/b/c/1", "a/b/c/2", "a/b-c", "a/b.txt", "a-b/x", "a.md", "b/1", "b/2", "c"] {
        workspace.write(&path(file), "12345").await.unwrap();
    }
    for (directory, options) in
        [("", ListOptions::recursive()), ("a", ListOptions::recursive()), ("", ListOptions::flat())]
    {
        let whole = workspace.list(&path(directory), options.clone()).await.unwrap();
        assert_eq!(whole.next, None);
        for limit in 1..=whole.items.len() {
            let (mut pages, mut page) = (Vec::new(), options.clone().limit(limit));
            loop {
                let listing = workspace.list(&path(directory), page).await.unwrap();
                assert!(listing.items.len() <= limit);
                pages.extend(listing.items);
                match listing.next {
                    Some(next) => page = options.clone().limit(limit).after(next),
                    None => break,
                }
            }
            assert_eq!(pages, whole.items, "{directory:?} by {limit}");
        }
    }
}

#[tokio::test]
async fn a_page_starts_after_the_last_one_even_if_that_entry_was_removed() {
    let (_outside, workspace) = workspace().await;
    for file in ["a/1", "a/2", "b/1", "c"] {
        workspace.write(&path(file), "").await.unwrap();
    }
    let after = async |last: &str| {
        let options = ListOptions::recursive().after(path(last));
        let listing = workspace.list(&WorkspacePath::root(), options).await.unwrap();
        listing.items.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(after("a/1").await, "a/2 b b/1 c");
    workspace.remove(&path("a/1")).await.unwrap();
    assert_eq!(after("a/1").await, "a/2 b b/1 c");
    workspace.remove(&path("a/2")).await.unwrap();
    workspace.remove(&path("a")).await.unwrap();
    assert_eq!(after("a/1").await, "b b/1 c");
    assert_eq!(after("c").await, "");
}

#[tokio::test]
async fn a_large_directory_is_paged_completely() {
    let (outside, workspace) = workspace().await;
    const FILES: usize = 25_000;
    fs::create_dir(inside(&outside).join("many")).unwrap();
    for number in 0..FILES {
        fs::File::create(inside(&outside).join(format!("many/{number:05}"))).unwrap();
    }
    fs::write(inside(&outside).join("z"), "").unwrap();
    let all = all_pages(&workspace, ListOptions::recursive().limit(ListOptions::MAX_LIMIT)).await;
    let numbers = (0..FILES).map(|number| format!("many/{number:05}"));
    let expected: Vec<String> =
        std::iter::once("many".to_owned()).chain(numbers).chain(["z".to_owned()]).collect();
    assert!(all == expected, "{} of {}", all.len(), expected.len());
    let few = all_pages(&workspace, ListOptions::recursive().matching("*9999")).await;
    assert_eq!(few, ["many/09999", "many/19999"]);
}

#[tokio::test]
async fn a_large_directory_does_not_hide_what_follows_it() {
    let (outside, workspace) = workspace().await;
    workspace.write(&path("z.md"), "12345").await.unwrap();
    let many = inside(&outside).join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..2 * ListOptions::MAX_LIMIT + 5 {
        fs::write(many.join(format!("{n:06}")), "").unwrap();
    }
    fs::write(many.join("x.md"), "").unwrap();
    let found =
        workspace.list(&WorkspacePath::root(), ListOptions::recursive().matching("**/*.md")).await.unwrap();
    let paths: Vec<&str> = found.items.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!((paths, found.next), (vec!["many/x.md", "z.md"], None));
}

async fn all_pages(workspace: &Workspace, options: ListOptions) -> Vec<String> {
    let (mut paths, mut page) = (Vec::new(), options.clone());
    loop {
        let listing = workspace.list(&WorkspacePath::root(), page).await.unwrap();
        paths.extend(listing.items.into_iter().map(|entry| entry.path.to_string()));
        match listing.next {
            Some(next) => page = options.clone().after(next),
            None => return paths,
        }
    }
}

#[tokio::test]
async fn a_name_that_nobody_could_request_is_not_listed() {
    let (outside, workspace) = workspace().await;
    for name in ["fine", "a\\b", "new\nline", "%2e%2e", ".gathering-unfinished-1"] {
        fs::write(inside(&outside).join(name), "").unwrap();
    }
    let mut deep = inside(&outside);
    for _ in 0..12 {
        deep.push("d".repeat(200));
        // One level at a time: the whole path is longer than a program may name at once.
        if fs::create_dir(&deep).is_err() {
            break;
        }
    }
    let listed = listed(&workspace, "").await;
    assert!(listed.iter().all(|path| path.len() <= WorkspacePath::MAX_LEN + 2));
    let files: Vec<_> = listed.iter().filter(|path| !path.starts_with('d')).collect();
    assert_eq!(files, ["fine:0"]);
}

#[tokio::test]
async fn a_cached_directory_shows_every_write_at_every_cache_size() {
    for n_directories in [1, 100] {
        let (outside, workspace) = workspace().await;
        let cache = DirectoryCache::new(n_directories);
        let workspace = workspace.remembering(cache);
        let other = elsewhere(&outside).await;
        for file in ["a/1", "b/1"] {
            workspace.write(&path(file), "1").await.unwrap();
        }
        settle(&inside(&outside).join("b")).await;
        assert_eq!(listed(&workspace, "").await, ["a:0", "a/1:1", "b:0", "b/1:1"]);
        // Another process, which does not share what is remembered.
        other.write(&path("a/2"), "22").await.unwrap();
        assert_eq!(listed(&workspace, "").await, ["a:0", "a/1:1", "a/2:2", "b:0", "b/1:1"]);
        other.write(&path("a/1"), "333").await.unwrap();
        assert_eq!(listed(&workspace, "").await, ["a:0", "a/1:3", "a/2:2", "b:0", "b/1:1"]);
        // And this one.
        workspace.write(&path("b/1"), "4444").await.unwrap();
        workspace.remove(&path("a/2")).await.unwrap();
        assert_eq!(listed(&workspace, "").await, ["a:0", "a/1:3", "b:0", "b/1:4"]);
        other.remove(&path("b/1")).await.unwrap();
        other.remove(&path("b")).await.unwrap();
        assert_eq!(listed(&workspace, "").await, ["a:0", "a/1:3"]);
    }
}

#[tokio::test]
async fn a_write_in_the_same_clock_tick_as_the_read_is_seen() {
    let (outside, workspace) = workspace().await;
    let workspace = workspace.remembering(DirectoryCache::new(10));
    let root = inside(&outside);
    // Writes and lists alternate as fast as they can, so that many fall into one tick of the file system's clock.
    for round in 0..300_usize {
        fs::write(root.join("next"), "x".repeat(round)).unwrap();
        fs::rename(root.join("next"), root.join("f")).unwrap();
        assert_eq!(listed(&workspace, "").await, [format!("f:{round}")]);
    }
}

#[tokio::test]
async fn a_file_that_grows_in_place_is_seen_within_two_seconds() {
    let (outside, workspace) = workspace().await;
    let workspace = workspace.remembering(DirectoryCache::new(10));
    let file = inside(&outside).join("log");
    fs::write(&file, "1").unwrap();
    settle(&inside(&outside)).await;
    assert_eq!(listed(&workspace, "").await, ["log:1"]);
    fs::write(&file, "22").unwrap();
    let begun = std::time::Instant::now();
    while listed(&workspace, "").await != ["log:2"] {
        assert!(begun.elapsed() < Duration::from_millis(2500), "it is still as it was remembered");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_target_of_a_link_is_not_cached() {
    let (outside, workspace) = workspace().await;
    let workspace = workspace.remembering(DirectoryCache::new(10));
    workspace.write(&path("a/real"), "1").await.unwrap();
    fs::create_dir(inside(&outside).join("b")).unwrap();
    std::os::unix::fs::symlink("../a/real", inside(&outside).join("b/link")).unwrap();
    settle(&inside(&outside).join("b")).await;
    assert_eq!(listed(&workspace, "b").await, ["b/link:1"]);
    workspace.write(&path("a/real"), "22").await.unwrap();
    assert_eq!(listed(&workspace, "b").await, ["b/link:2"]);
}

#[tokio::test]
async fn a_settled_directory_is_read_once_and_an_unsettled_one_each_time() {
    let (outside, workspace) = workspace().await;
    let cache = DirectoryCache::new(10);
    let workspace = workspace.remembering(cache.clone());
    workspace.write(&path("d/f"), "1").await.unwrap();
    listed(&workspace, "d").await;
    listed(&workspace, "d").await;
    assert_eq!(cache.statistics().n_entries, 0, "it has just been changed");
    settle(&inside(&outside).join("d")).await;
    listed(&workspace, "d").await;
    listed(&workspace, "d").await;
    let statistics = cache.statistics();
    assert_eq!((statistics.n_entries, statistics.hits), (1, 1));
}
