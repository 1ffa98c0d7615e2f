//! Paths from the wire, cursors and problems; what needs a database is tried from end to end.

use actix_web::App;
use actix_web::test::{TestRequest, call_service, init_service};

use super::*;
use crate::http::api::lists;

const PREFIX: &str = "/api/v1/projects/0192f0c8-0000-7000-8000-000000000000/files/";

async fn echo(request: HttpRequest) -> Result<String, ProblemDetails> {
    Ok(path_of(&request)?.to_string())
}

#[actix_web::test]
async fn every_path_that_leaves_is_refused_as_it_comes_from_the_wire() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/traversal.txt");
    let cases = std::fs::read_to_string(file).unwrap();
    let app = App::new().route("/api/v1/projects/{id}/files/{path:.*}", web::get().to(echo));
    let app = init_service(app).await;
    let mut n_cases = 0;
    for case in cases.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        // The routes are matched against a path of which a part was decoded; the case comes through as it is.
        let request = TestRequest::get().uri(&format!("{PREFIX}{case}")).to_request();
        let response = call_service(&app, request).await;
        assert_eq!(response.status(), 403, "{case}");
        n_cases += 1;
    }
    assert!(n_cases >= 100, "only {n_cases}");
}

#[actix_web::test]
async fn a_path_is_decoded_once() {
    for (tail, expected) in [
        ("a/b.md", "a/b.md"),
        ("a%20b", "a b"),
        ("a%2Fb", "a/b"),
        ("100%2525", "100%25"),
        ("a+b", "a+b"),
        ("%E6%97%A5", "日"),
        ("a?path=b", "a"),
        ("", ""),
    ] {
        let request = TestRequest::get().uri(&format!("{PREFIX}{tail}")).to_http_request();
        assert_eq!(path_of(&request).unwrap().as_str(), expected, "{tail}");
    }
}

#[test]
fn a_directory_in_the_query_is_no_way_out_either() {
    let read = |query: &str| {
        let request = TestRequest::get().uri(&format!("/x?{query}")).to_http_request();
        let query = web::Query::<ListFiles>::from_query(query).unwrap().into_inner();
        directory_in(&query, &request)
            .map(|path| path.to_string())
            .map_err(|problem| problem.status().as_u16())
    };
    assert_eq!(read("path=a%2Fb+c"), Ok("a/b c".to_owned()));
    assert_eq!(read(""), Ok(String::new()));
    assert_eq!(read("path=%EF%BF%BD"), Ok("\u{FFFD}".to_owned()));
    for query in ["path=..", "path=%2e%2e/a", "path=%252e%252e", "path=/etc", "path=%ff", "path=..%c0%afa"] {
        assert_eq!(read(query), Err(403), "{query}");
    }
    assert_eq!(read("path=a//b"), Err(422));
}

#[test]
fn a_cursor_goes_on_in_its_own_directory_only() {
    let path = |text: &str| text.parse::<WorkspacePath>().unwrap();
    let cursor = |text: &str| URL_SAFE_NO_PAD.encode(text);
    assert_eq!(cursor_of(&cursor("files:a/b"), &path("a")), Some(path("a/b")));
    assert_eq!(cursor_of(&cursor("files:a/b"), &WorkspacePath::root()), Some(path("a/b")));
    for (text, directory) in [
        (cursor("files:ab/c"), "a"),
        (cursor("files:a"), "a"),
        (cursor("files:"), ""),
        (cursor("files:../a"), ""),
        (cursor("runs:a"), ""),
        ("a b".to_owned(), ""),
        (page::encode(lists::RUNS, uuid::Uuid::nil()), ""),
    ] {
        assert_eq!(cursor_of(&text, &path(directory)), None, "{text} {directory}");
    }
}

#[test]
fn a_precondition_is_read_or_refused_and_never_overlooked() {
    let read = |headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(TestRequest::put(), |request, header| request.insert_header(*header));
        precondition_of(&request.to_http_request()).map_err(|problem| problem.status().as_u16())
    };
    let versions =
        |tags: &[&str]| Ok(Precondition::Version(tags.iter().map(|tag| (*tag).to_owned().into()).collect()));
    assert_eq!(read(&[]), Ok(Precondition::None));
    assert_eq!(read(&[("if-match", "*")]), Ok(Precondition::Present));
    assert_eq!(read(&[("if-match", "\"a\", W/\"b\", \"c\"")]), versions(&["a", "c"]));
    assert_eq!(read(&[("if-match", "a")]), versions(&[]), "which no file is");
    assert_eq!(read(&[("if-none-match", "*")]), Ok(Precondition::Absent));
    assert_eq!(read(&[("if-none-match", "\"a\"")]), Err(400));
    assert_eq!(read(&[("if-none-match", "")]), Err(400));
    assert_eq!(read(&[("if-match", "*"), ("if-none-match", "*")]), Err(400));
}
