//! Files over HTTP: what is written comes back, in parts, under conditions, and never half.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Client, Database, Raw, Reply, Server, head, wait_until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(30);

/// An account with a project; returns the path of its files.
async fn joined(server: &Server) -> Result<(Client, String)> {
    let ada = server.client().join("ada@example.org").await?;
    let project = ada.create_project("files").await?;
    Ok((ada, format!("/api/v1/projects/{project}/files")))
}

async fn get_with(client: &Client, path: &str, headers: &[(&str, &str)]) -> Result<Reply> {
    let request = headers
        .iter()
        .fold(client.request(Method::GET, path), |request, (name, value)| request.header(*name, *value));
    client.send(request).await
}

async fn put_if(client: &Client, path: &str, header: (&str, &str), body: &str) -> Result<Reply> {
    let request = client.request(Method::PUT, path).header(header.0, header.1);
    client.send(request.body(body.to_owned())).await
}

async fn names(client: &Client, path: &str) -> Result<Vec<String>> {
    let list = client.get(path).await?.expect(200)?;
    let items = list["items"].as_array().context("no items")?.clone();
    Ok(items.iter().filter_map(|item| item["path"].as_str().map(str::to_owned)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_file_is_answered_as_it_was_asked_for() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (ada, files) = joined(&server).await?;
    let path = format!("{files}/digits.txt");
    let put = ada.put_bytes(&path, "0123456789").await?;
    assert_eq!(put.status, 201, "{}", put.text);
    let whole = ada.get(&path).await?;
    assert_eq!((whole.status, whole.text.as_str()), (200, "0123456789"));
    let etag = whole.header("etag").to_owned();
    assert!(!etag.is_empty() && etag == put.header("etag"), "{:?}", whole.headers);
    assert!(whole.header("content-type").starts_with("text/plain"), "{:?}", whole.headers);
    assert_eq!((whole.header("accept-ranges"), whole.header("content-length")), ("bytes", "10"));
    let modified = whole.header("last-modified").to_owned();
    assert!(modified.ends_with(" GMT"), "{modified}");
    for (range, part, place) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=4-6", "456", "bytes 4-6/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-1000", "89", "bytes 8-9/10"),
        ("bytes=-1000", "0123456789", "bytes 0-9/10"),
    ] {
        let reply = get_with(&ada, &path, &[("range", range)]).await?;
        assert_eq!((reply.status, reply.text.as_str()), (206, part), "{range}");
        assert_eq!((reply.header("content-range"), reply.header("etag")), (place, etag.as_str()), "{range}");
        assert_eq!(reply.header("content-length"), part.len().to_string(), "{range}");
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
        let reply = get_with(&ada, &path, &[("range", range)]).await?;
        reply.expect_problem(416, "range-not-satisfiable").with_context(|| range)?;
        assert_eq!(reply.header("content-range"), "bytes */10", "{range}");
    }
    // What is no single range of bytes is ignored, as RFC 9110 allows.
    for range in ["bytes=0-1,4-5", "lines=0-1", "bytes=x-", "bytes=5-4", "bytes="] {
        let reply = get_with(&ada, &path, &[("range", range)]).await?;
        assert_eq!((reply.status, reply.text.as_str()), (200, "0123456789"), "{range}");
    }
    for (validator, status) in [(etag.as_str(), 206), (&modified, 206), ("\"another\"", 200)] {
        let reply = get_with(&ada, &path, &[("range", "bytes=0-0"), ("if-range", validator)]).await?;
        // A time is no strong validator within the second in which the file was written.
        let may_be_whole = validator == modified && reply.status == 200;
        assert!(reply.status == status || may_be_whole, "{validator}: {}", reply.status);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_ignores_ranges() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (ada, files) = joined(&server).await?;
    let path = format!("{files}/digits.txt");
    ada.put_bytes(&path, "0123456789").await?.expect(201)?;
    for range in ["bytes=0-3", "bytes=50-", "nonsense"] {
        let reply = ada.send(ada.request(Method::HEAD, &path).header("range", range)).await?;
        let described = (reply.status, reply.header("content-length"), reply.header("content-range"));
        assert_eq!(described, (200, "10", ""), "{range}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_like_a_directory_is_not_written_as_a_file() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (ada, files) = joined(&server).await?;
    ada.put_bytes(&format!("{files}/d/a"), "a").await?.expect(201)?;
    for name in ["dd/", "d/", "dd%2F", "dd%2f", "dd//", "d/b/"] {
        let refused = ada.put_bytes(&format!("{files}/{name}"), "x").await?;
        refused.expect_problem(422, "invalid").with_context(|| name.to_owned())?;
        assert_eq!(refused.pointers(), ["/path"], "{}", refused.text);
    }
    assert_eq!(names(&ada, &format!("{files}?recursive=true")).await?, ["d", "d/a"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_kept() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (ada, files) = joined(&server).await?;
    let path = format!("{files}/a.txt");
    let only_new = ("if-none-match", "*");
    let etag = put_if(&ada, &path, only_new, "one").await?.header("etag").to_owned();
    put_if(&ada, &path, only_new, "two").await?.expect_problem(412, "precondition-failed")?;
    put_if(&ada, &format!("{files}/b.txt"), ("if-match", "*"), "x")
        .await?
        .expect_problem(412, "precondition-failed")?;
    for condition in [etag.clone(), format!("\"other\", {etag}"), format!("W/{etag}"), "*".to_owned()] {
        let reply = get_with(&ada, &path, &[("if-none-match", &condition)]).await?;
        assert_eq!(
            (reply.status, reply.text.as_str(), reply.header("etag")),
            (304, "", etag.as_str()),
            "{condition}"
        );
    }
    assert_eq!(get_with(&ada, &path, &[("if-none-match", "\"other\"")]).await?.status, 200);
    get_with(&ada, &path, &[("if-match", "\"other\"")]).await?.expect_problem(412, "precondition-failed")?;
    assert_eq!(get_with(&ada, &path, &[("if-match", &etag)]).await?.status, 200);

    let replaced = put_if(&ada, &path, ("if-match", &etag), "two").await?;
    assert_eq!(replaced.status, 204, "{}", replaced.text);
    assert_ne!(replaced.header("etag"), etag);
    put_if(&ada, &path, ("if-match", &etag), "three").await?.expect_problem(412, "precondition-failed")?;
    assert_eq!(ada.get(&path).await?.text, "two");
    let delete = ada.request(Method::DELETE, &path).header("if-match", &etag);
    ada.send(delete).await?.expect_problem(412, "precondition-failed")?;
    let delete = ada.request(Method::DELETE, &path).header("if-match", replaced.header("etag"));
    ada.send(delete).await?.expect(204)?;
    ada.get(&path).await?.expect_problem(404, "not-found")?;
    ada.delete(&path).await?.expect_problem(404, "not-found")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_saw_the_same_version_one_wins() -> Result<()> {
    const N_WRITERS: usize = 20;
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    let (ada, files) = joined(&one).await?;
    let there = other.client().with_token(ada.token().context("no token")?);
    let path = format!("{files}/contended.txt");
    let mut version: Option<String> = None;
    for round in 0..5 {
        let mut writers = JoinSet::new();
        for n in 0..N_WRITERS {
            let client = if n % 2 == 0 { ada.clone() } else { there.clone() };
            let (path, seen) = (path.clone(), version.clone());
            writers.spawn(async move {
                let header = seen.as_deref().map_or(("if-none-match", "*"), |etag| ("if-match", etag));
                let body = format!("round {round}, writer {n}");
                anyhow::Ok((put_if(&client, &path, header, &body).await?, body))
            });
        }
        let replies = writers.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        let won: Vec<_> = replies.iter().filter(|(reply, _)| [201, 204].contains(&reply.status)).collect();
        let n_lost = replies.iter().filter(|(reply, _)| reply.status == 412).count();
        assert_eq!((won.len(), n_lost), (1, N_WRITERS - 1), "round {round}");
        let (reply, body) = won[0];
        assert_eq!(ada.get(&path).await?.text, *body);
        version = Some(reply.header("etag").to_owned());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_the_old_file_or_the_new_one_and_nothing_between() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (ada, files) = joined(&server).await?;
    let path = format!("{files}/whole.txt");
    let text = |n: usize| format!("{n:04}").repeat(50_000);
    ada.put_bytes(&path, text(0)).await?.expect(201)?;
    let mut readers = JoinSet::new();
    let (done, is_done) = tokio::sync::watch::channel(false);
    for _ in 0..4 {
        let (ada, path, is_done) = (ada.clone(), path.clone(), is_done.clone());
        readers.spawn(async move {
            let mut seen = BTreeSet::new();
            while !*is_done.borrow() {
                let reply = ada.get(&path).await?;
                let first = reply.text.get(..4).context("the file is empty")?.to_owned();
                anyhow::ensure!(reply.text == first.repeat(50_000), "half of {first}");
                seen.insert((reply.header("etag").to_owned(), first));
            }
            anyhow::Ok(seen)
        });
    }
    for n in 1..=40 {
        ada.put_bytes(&path, text(n)).await?.expect(204)?;
    }
    done.send_replace(true);
    let mut seen = BTreeSet::new();
    for reader in readers.join_all().await {
        seen.extend(reader?);
    }
    let etags: BTreeSet<_> = seen.iter().map(|(etag, _)| etag).collect();
    assert_eq!(etags.len(), seen.len(), "one version, one content");
    assert!(seen.len() > 1, "nothing was read in between");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_is_refused_and_leaves_nothing() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        command.env("GATHERING_MAX_FILE_BYTES", "100000");
    })
    .await?;
    let (ada, files) = joined(&server).await?;
    let path = format!("{files}/large.bin");
    ada.put_bytes(&path, vec![1; 100_000]).await?.expect(201)?;
    let bearer = format!("Bearer {}", ada.token().context("no token")?);
    let login = [("authorization", bearer.as_str())];
    // Announced: refused before a byte of it is sent.
    let mut raw = Raw::connect(server.address()).await?;
    raw.send(head("PUT", &path, &login, 100_001)).await?;
    let refused = raw.reply().await?;
    assert_eq!((refused.status, &refused.json()["type"]), (413, &json!("/problems/too-large")));
    // Not announced: refused as soon as it is too much.
    let mut raw = Raw::connect(server.address()).await?;
    let start = String::from_utf8(head("PUT", &path, &login, 0))?;
    raw.send(start.replace("content-length: 0", "transfer-encoding: chunked")).await?;
    let chunk = [b"ea60\r\n".as_slice(), &[2; 60_000], b"\r\n"].concat();
    // The server reads 256 KiB at a time.
    for _ in 0..6 {
        // It may have been refused already.
        raw.send(&chunk).await.ok();
    }
    let refused = raw.reply().await?;
    assert_eq!(refused.status, 413, "{}", refused.text());
    let kept = ada.get(&path).await?;
    assert!(kept.text.bytes().all(|byte| byte == 1) && kept.text.len() == 100_000);
    check_no_stray(&database, &files, &["large.bin"]).await
}

/// The project's directory holds these files and nothing else, however hidden.
async fn check_no_stray(database: &Database, files: &str, expected: &[&str]) -> Result<()> {
    let project = files.split('/').nth(4).context("no project")?;
    let directory = database.files_of(project);
    wait_until(LIMIT, "nothing unfinished is left", async || {
        let mut found: Vec<String> = std::fs::read_dir(&directory)
            .map_err(|error| error.to_string())?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        found.sort();
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_the_old_content_and_no_stray_file() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start(&database).await?;
    let (ada, files) = joined(&server).await?;
    let (old, new) = (format!("{files}/old.txt"), format!("{files}/new.txt"));
    ada.put_bytes(&old, "old content").await?.expect(201)?;
    let bearer = format!("Bearer {}", ada.token().context("no token")?);
    for path in [&old, &new] {
        let mut raw = Raw::connect(server.address()).await?;
        raw.send(head("PUT", path, &[("authorization", &bearer)], 10_000_000)).await?;
        raw.send(vec![3; 1_000_000]).await?;
        drop(raw);
    }
    check_no_stray(&database, &files, &["old.txt"]).await?;
    assert_eq!(ada.get(&old).await?.text, "old content");
    // The same when it is the server that goes away.
    let mut raw = Raw::connect(server.address()).await?;
    raw.send(head("PUT", &old, &[("authorization", &bearer)], 10_000_000)).await?;
    raw.send(vec![3; 1_000_000]).await?;
    server.kill()?;
    let server = Server::start(&database).await?;
    let ada = server.client().with_token(ada.token().context("no token")?);
    assert_eq!(ada.get(&old).await?.text, "old content");
    assert_eq!(names(&ada, &format!("{files}?recursive=true")).await?, ["old.txt"]);
    check_no_stray(&database, &files, &["old.txt"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_recursive_and_shows_at_once_what_another_instance_wrote() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    let (ada, files) = joined(&one).await?;
    let there = other.client().with_token(ada.token().context("no token")?);
    assert_eq!(names(&ada, &files).await?, [""; 0]);
    let mut written = Vec::new();
    for n in 0..12 {
        let (writer, reader) = if n % 2 == 0 { (&there, &ada) } else { (&ada, &there) };
        let name = if n % 3 == 0 { format!("{n:02}.txt") } else { format!("dir/{n:02}.txt") };
        writer.put_bytes(&format!("{files}/{name}"), "x".repeat(n)).await?.expect(201)?;
        written.push(name);
        let mut found = names(reader, &format!("{files}?recursive=true")).await?;
        found.retain(|path| path != "dir");
        found.sort();
        let mut expected = written.clone();
        expected.sort();
        assert_eq!(found, expected, "after {n}");
    }
    let top = ada.get(&files).await?.expect(200)?;
    let directory = top["items"].as_array().into_iter().flatten().find(|item| item["path"] == "dir");
    let directory = directory.context("no directory")?;
    assert_eq!((&directory["kind"], &directory["size"]), (&json!("directory"), &json!(0)), "{directory}");
    let below = ada.get(&format!("{files}?path=dir")).await?.expect(200)?;
    let item = &below["items"][0];
    assert_eq!(
        (&item["path"], &item["kind"], &item["size"]),
        (&json!("dir/01.txt"), &json!("file"), &json!(1))
    );
    assert!(item["modified_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{item}");
    let whole = names(&ada, &format!("{files}?recursive=true")).await?;
    let (mut paged, mut query) = (Vec::new(), "?recursive=true&limit=5".to_owned());
    loop {
        let page = ada.get(&format!("{files}{query}")).await?.expect(200)?;
        let items: &[Value] = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(items.len() <= 5);
        paged.extend(items.iter().filter_map(|item| item["path"].as_str().map(str::to_owned)));
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?recursive=true&limit=5&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, whole);
    there.delete(&format!("{files}/dir")).await?.expect_problem(409, "conflict")?;
    for name in written.iter().filter(|name| name.starts_with("dir/")) {
        there.delete(&format!("{files}/{name}")).await?.expect(204)?;
        assert!(!names(&ada, &format!("{files}?path=dir")).await?.contains(name));
    }
    there.delete(&format!("{files}/dir")).await?.expect(204)?;
    ada.get(&format!("{files}?path=dir")).await?.expect_problem(404, "not-found")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_comes_back_byte_for_byte() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (ada, files) = joined(&server).await?;
    for (on_the_wire, name) in [
        ("two%20words.txt", "two words.txt"),
        ("%E6%97%A5%E6%9C%AC.md", "日本.md"),
        ("100%25.txt", "100%.txt"),
        ("a%3Fb%23c.txt", "a?b#c.txt"),
        ("a+b&c=d;e'f\"g.txt".replace('"', "%22").leak(), "a+b&c=d;e'f\"g.txt"),
        (".hidden", ".hidden"),
    ] {
        ada.put_bytes(&format!("{files}/{on_the_wire}"), name).await?.expect(201).with_context(|| name)?;
        assert_eq!(ada.get(&format!("{files}/{on_the_wire}")).await?.text, name);
        assert!(names(&ada, &files).await?.contains(&name.to_owned()), "{name}");
        ada.delete(&format!("{files}/{on_the_wire}")).await?.expect(204)?;
    }
    assert_eq!(names(&ada, &files).await?, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_project_are_for_no_other_user_of_the_machine() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let (ada, files) = joined(&server).await?;
    ada.put_bytes(&format!("{files}/a/b.txt"), "private").await?.expect(201)?;
    let project = files.split('/').nth(4).context("no project")?;
    let root = database.files_of(project);
    let workspaces = root.parent().context("no workspaces")?;
    let mode = |at: &std::path::Path| Ok::<_, std::io::Error>(at.metadata()?.permissions().mode() & 0o777);
    assert_eq!((mode(workspaces)?, mode(&root)?), (0o700, 0o700));
    assert_eq!((mode(&root.join("a"))?, mode(&root.join("a/b.txt"))?), (0o700, 0o600));
    Ok(())
}
