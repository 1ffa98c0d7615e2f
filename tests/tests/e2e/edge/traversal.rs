//! Nothing outside a project's directory is read, written, removed or listed, whatever a path says and whatever links
//! somebody puts below it.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Client, Database, Raw, RawReply, Server, workspace_root};
use serde_json::json;

/// The content of every file outside, which no answer may contain.
const CANARY: &str = "canary-7f3a-outside-the-workspace";

/// A project, and files around its directory.
struct Place {
    database: Database,
    server: Server,
    ada: Client,
    files: String,
    directory: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Place {
    async fn set() -> Result<Place> {
        let database = Database::empty().await?;
        let server = Server::start(&database).await?;
        let ada = server.client().join("ada@example.org").await?;
        let project = ada.create_project("inside").await?;
        let files = format!("/api/v1/projects/{project}/files");
        ada.put_bytes(&format!("{files}/inside/a.txt"), "inside").await?.expect(201)?;
        let directory = database.files_of(&project);
        let workspaces = directory.parent().context("no parent")?.to_owned();
        let outside = database.directory().join("outside");
        std::fs::create_dir_all(outside.join("deep"))?;
        for place in
            [&workspaces, &database.data_dir(), database.directory(), &outside, &outside.join("deep")]
        {
            std::fs::write(place.join("secret"), CANARY)?;
            std::fs::write(place.join("secret.md"), CANARY)?;
        }
        let mut place = Place { database, server, ada, files, directory, before: BTreeMap::new() };
        place.before = place.outside()?;
        ensure!(place.before.len() >= 10, "{:?}", place.before.keys());
        Ok(place)
    }

    /// Every file that is not the project's, with its content.
    fn outside(&self) -> Result<BTreeMap<PathBuf, String>> {
        fn collect(at: &Path, skip: &Path, found: &mut BTreeMap<PathBuf, String>) -> Result<()> {
            for entry in std::fs::read_dir(at)? {
                let path = entry?.path();
                if path == skip {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    found.insert(path.clone(), "a directory".to_owned());
                    collect(&path, skip, found)?;
                } else {
                    found.insert(path.clone(), String::from_utf8_lossy(&std::fs::read(&path)?).into_owned());
                }
            }
            Ok(())
        }
        let mut found = BTreeMap::new();
        collect(self.database.directory(), &self.directory, &mut found)?;
        Ok(found)
    }

    async fn ask(&self, raw: &mut Raw, method: &str, tail: &str, body: &[u8]) -> Result<RawReply> {
        let bearer = format!("Bearer {}", self.ada.token().context("no token")?);
        let target = format!("{}/{tail}", self.files);
        let asked = raw.request(method, &target, &[("authorization", &bearer)], body).await;
        let reply = match asked {
            Ok(()) => raw.reply().await,
            Err(error) => Err(error),
        };
        match reply {
            Ok(reply) => Ok(reply),
            // The connection may have been closed after an earlier refusal: once more on a new one.
            Err(_) => {
                *raw = Raw::connect(self.server.address()).await?;
                raw.request(method, &target, &[("authorization", &bearer)], body).await?;
                raw.reply().await.with_context(|| format!("{method} {tail}"))
            }
        }
    }

    /// Whatever was asked, nothing outside has changed.
    fn check_untouched(&self) -> Result<()> {
        let after = self.outside()?;
        for (path, content) in &self.before {
            ensure!(after.get(path) == Some(content), "{} has changed", path.display());
        }
        let new: Vec<_> = after.keys().filter(|path| !self.before.contains_key(*path)).collect();
        ensure!(new.is_empty(), "outside there is now {new:?}");
        Ok(())
    }
}

fn corpus(name: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(workspace_root()?.join("tests/data").join(name))?;
    let cases = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(cases.map(str::to_owned).collect())
}

fn has_canary(reply: &RawReply) -> bool {
    reply.text().contains(CANARY)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_that_leads_out_is_forbidden_and_touches_nothing() -> Result<()> {
    let place = Place::set().await?;
    let cases = corpus("traversal.txt")?;
    assert!(cases.len() > 100);
    let mut raw = Raw::connect(place.server.address()).await?;
    let (mut wrong, mut words) = (Vec::new(), BTreeMap::new());
    for tail in &cases {
        for (method, body) in [("GET", &b""[..]), ("PUT", b"written"), ("DELETE", b"")] {
            let reply = place.ask(&mut raw, method, tail, body).await?;
            if reply.status != 403 || has_canary(&reply) {
                wrong.push(format!("{method} {tail}: {} {}", reply.status, reply.text()));
            }
            let mut problem = reply.json();
            problem["instance"].take();
            *words.entry(problem.to_string()).or_insert(0) += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(words.len(), 1, "the same words for each: {words:#?}");
    place.check_untouched()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_as_if_it_led_out_stays_inside() -> Result<()> {
    let place = Place::set().await?;
    let mut raw = Raw::connect(place.server.address()).await?;
    for tail in corpus("lookalikes.txt")? {
        for (method, body) in [("PUT", &b"written"[..]), ("GET", b""), ("DELETE", b"")] {
            let reply = place.ask(&mut raw, method, &tail, body).await?;
            assert!(
                reply.status < 500 && !has_canary(&reply),
                "{method} {tail}: {} {}",
                reply.status,
                reply.text()
            );
        }
        place.check_untouched().with_context(|| tail)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_leads_out_is_forbidden_in_the_query_of_a_list_too() -> Result<()> {
    let place = Place::set().await?;
    for tail in ["..", "../..", "/", "/etc", "inside/../..", "%2e%2e", "..%2f..", "%2fetc", "a/../../b"] {
        for recursive in ["", "&recursive=true"] {
            let reply = place.ada.get(&format!("{}?path={tail}{recursive}", place.files)).await?;
            assert_eq!(reply.status, 403, "{tail}: {}", reply.text);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_out_is_no_way_out() -> Result<()> {
    let place = Place::set().await?;
    let outside = place.database.directory().join("outside");
    let link = |name: &str, target: &Path| symlink(target, place.directory.join(name));
    link("to-file", &outside.join("secret"))?;
    link("to-directory", &outside)?;
    link("to-nothing", &outside.join("nothing"))?;
    link("relative", Path::new("../../../outside"))?;
    link("to-link", Path::new("to-directory"))?;
    link("to-root", Path::new("/"))?;
    link("to-self", Path::new("/proc/self/root"))?;
    link("inside/up", Path::new(".."))?;
    let mut raw = Raw::connect(place.server.address()).await?;
    for tail in [
        "to-file",
        "to-directory",
        "to-directory/secret",
        "to-directory/deep/secret",
        "to-directory/new.txt",
        "to-directory/new/deep.txt",
        "to-nothing",
        "relative/secret",
        "to-link/secret",
        "to-root/etc/passwd",
        "to-self/etc/passwd",
        "inside/up/to-directory/secret",
        "inside/up/to-file",
    ] {
        for (method, body) in [("GET", &b""[..]), ("PUT", b"written"), ("DELETE", b"")] {
            // Removing a link, or putting a file in its place, is done to what is inside.
            let is_last = !tail.contains('/') || tail == "inside/up/to-file";
            let reply = place.ask(&mut raw, method, tail, body).await?;
            let may_be_done = is_last && method != "GET" && [201, 204].contains(&reply.status);
            assert!(reply.status == 403 || may_be_done, "{method} {tail}: {} {}", reply.status, reply.text());
            assert!(!has_canary(&reply), "{method} {tail}");
            place.check_untouched().with_context(|| format!("{method} {tail}"))?;
        }
        if !tail.contains('/') {
            std::fs::remove_file(place.directory.join(tail)).ok();
            link(tail, &outside.join(if tail == "to-file" { "secret" } else { "" }))?;
        }
    }
    let whole = place.ada.get(&format!("{}?recursive=true&limit=200", place.files)).await?.expect(200)?;
    assert!(!whole.to_string().contains("secret"), "{whole}");
    for path in ["to-directory", "to-link", "to-root/etc"] {
        let reply = place.ada.get(&format!("{}?path={path}", place.files)).await?;
        assert!([403, 404].contains(&reply.status), "{path}: {}", reply.text);
    }
    Ok(())
}

/// A thread that makes one name a directory inside and a link to the outside by turns.
struct Swapper {
    is_done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<std::io::Result<u64>>>,
}

impl Swapper {
    fn start(directory: &Path, outside: &Path) -> Result<Swapper> {
        let (name, inside, spare) =
            (directory.join("swapped"), directory.join("real"), directory.join("spare"));
        std::fs::create_dir(&inside)?;
        std::fs::write(inside.join("secret"), "inside")?;
        let is_done = Arc::new(AtomicBool::new(false));
        let (flag, outside) = (Arc::clone(&is_done), outside.to_owned());
        let thread = std::thread::spawn(move || {
            let swap = || {
                for target in [Path::new("real"), &outside] {
                    symlink(target, &spare)?;
                    std::fs::rename(&spare, &name)?;
                }
                // And as a directory of its own.
                std::fs::remove_file(&name)?;
                std::fs::rename(&inside, &name)?;
                std::fs::rename(&name, &inside)
            };
            let mut n_swaps = 0;
            while !flag.load(Ordering::Relaxed) {
                match swap() {
                    Ok(()) => n_swaps += 1,
                    // A write made a directory of this name while there was none: it goes, and on it goes.
                    Err(_) => {
                        std::fs::remove_file(&spare).ok();
                        std::fs::remove_file(&name).or_else(|_| std::fs::remove_dir_all(&name)).ok();
                        std::fs::create_dir_all(&inside)?;
                    }
                }
            }
            Ok(n_swaps)
        });
        Ok(Swapper { is_done, thread: Some(thread) })
    }

    fn stop(mut self) -> Result<u64> {
        self.is_done.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped already")?;
        Ok(thread.join().map_err(|_| anyhow::anyhow!("the swapper panicked"))??)
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_swapped_while_it_is_looked_at_is_no_way_out_either() -> Result<()> {
    let place = Place::set().await?;
    let outside = place.database.directory().join("outside");
    let swapper = Swapper::start(&place.directory, &outside)?;
    let mut raw = Raw::connect(place.server.address()).await?;
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for n in 0..600 {
        let (method, tail, body) = match n % 4 {
            0 | 1 => ("GET", "swapped/secret".to_owned(), &b""[..]),
            2 => ("PUT", format!("swapped/written-{n}.txt"), &b"written"[..]),
            _ => ("DELETE", "swapped/secret.md".to_owned(), &b""[..]),
        };
        let reply = place.ask(&mut raw, method, &tail, body).await?;
        assert!(reply.status < 500 && !has_canary(&reply), "{method}: {} {}", reply.status, reply.text());
        *statuses.entry(reply.status).or_default() += 1;
        if n % 50 == 0 {
            let list = place.ada.get(&format!("{}?path=swapped", place.files)).await?;
            assert!(list.status < 500 && !list.body.to_string().contains("secret.md"), "{}", list.text);
        }
    }
    let n_swaps = swapper.stop()?;
    assert!(n_swaps > 50, "{n_swaps}");
    assert!(statuses.contains_key(&403), "no request met the link that leads out: {statuses:?}");
    place.check_untouched()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_as_a_name_is_refused_with_its_reason() -> Result<()> {
    let place = Place::set().await?;
    for tail in ["a%0ab", &"x".repeat(300), &"d/".repeat(3000)] {
        let reply = place.ada.put_bytes(&format!("{}/{tail}x", place.files), "x").await?;
        assert!([403, 414, 422].contains(&reply.status), "{tail:.20}: {} {}", reply.status, reply.text);
    }
    let directory = place.ada.put_bytes(&format!("{}/inside", place.files), "x").await?;
    assert!([409, 422].contains(&directory.status), "a directory is there: {}", directory.text);
    let below = place.ada.put_bytes(&format!("{}/inside/a.txt/b", place.files), "x").await?;
    assert!([404, 409, 422].contains(&below.status), "a file is no directory: {}", below.text);
    let list = place.ada.get(&format!("{}?path=inside/a.txt", place.files)).await?;
    assert!([404, 409, 422].contains(&list.status), "{}", list.text);
    assert_eq!(place.ada.get(&place.files).await?.expect(200)?["items"][0]["path"], json!("inside"));
    place.check_untouched()
}
