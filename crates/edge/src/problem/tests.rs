//! The answers that callers get.

use actix_web::body::to_bytes;
use gathering_auth::{AuthError, Denied, StoreError as AccountStoreError};
use gathering_control::{Conflict, ControlError, OpenWorkspaceError};
use gathering_dag_engine::StoreError;
use gathering_domain::ProjectId;
use gathering_tools::WorkspaceError;
use serde_json::{Value, json};

use super::*;

async fn answered(problem: ProblemDetails) -> (HttpResponse, Value) {
    let response = problem.error_response();
    let (head, body) = response.into_parts();
    let body = serde_json::from_slice(&to_bytes(body).await.unwrap()).unwrap();
    (head.map_into_boxed_body(), body)
}

#[actix_web::test]
async fn an_invalid_input_names_everything_with_its_pointer() {
    let mut problems = Problems::one(Pointer::root().join("name"), "is missing");
    problems.add(Pointer::root().join("definition").join("nodes").join(0), "must be an object");
    let (head, body) = answered(ProblemDetails::invalid(problems)).await;
    assert_eq!(head.status(), 422);
    assert_eq!(head.headers().get(CONTENT_TYPE).unwrap(), PROBLEM_JSON);
    assert_eq!(body["type"], "/problems/invalid");
    assert_eq!(
        body["errors"],
        json!([
            {"pointer": "/name", "message": "is missing"},
            {"pointer": "/definition/nodes/0", "message": "must be an object"},
        ])
    );
}

#[actix_web::test]
async fn an_unforeseen_error_says_nothing_to_the_caller_and_everything_to_the_log() {
    let problem = ProblemDetails::internal(std::io::Error::other("the secret of the house"));
    assert!(problem.causes().unwrap().contains("the secret of the house"));
    let (head, body) = answered(problem).await;
    assert_eq!(head.status(), 500);
    assert!(!body.to_string().contains("secret"), "{body}");
}

#[actix_web::test]
async fn an_outage_and_a_time_out_say_when_to_retry_and_a_fault_is_an_internal_error() {
    let cause = || "the innermost cause".into();
    let unavailable: [ProblemDetails; 3] = [
        StoreError::Unavailable(cause()).into(),
        ControlError::Unavailable(cause()).into(),
        AuthError::Store(AccountStoreError::Unavailable(cause())).into(),
    ];
    let timed_out = [
        StoreError::TimedOut(cause()).into(),
        ControlError::TimedOut(cause()).into(),
        AuthError::Store(AccountStoreError::TimedOut(cause())).into(),
    ];
    let fault = [
        StoreError::Fault(cause()).into(),
        ControlError::Broken(cause()).into(),
        AuthError::Store(AccountStoreError::Fault(cause())).into(),
    ];
    for (problems, status, name) in
        [(unavailable, 503, "unavailable"), (timed_out, 503, "timed-out"), (fault, 500, "internal")]
    {
        for problem in problems {
            let causes = problem.causes().unwrap();
            assert!(causes.ends_with("the innermost cause"), "{causes}");
            let (head, body) = answered(problem).await;
            assert_eq!((head.status().as_u16(), body["status"].as_u64()), (status, Some(status.into())));
            assert_eq!(body["type"], format!("/problems/{name}"));
            assert_eq!(head.headers().contains_key(RETRY_AFTER), status == 503, "{name}");
            assert!(!body.to_string().contains("innermost"), "{body}");
        }
    }
}

#[actix_web::test]
async fn a_throttled_caller_is_told_the_whole_seconds_to_wait_rounded_up() {
    for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
        let retry_after = Duration::from_millis(millis);
        let (head, body) = answered(AuthError::Throttled { retry_after }.into()).await;
        assert_eq!((head.status().as_u16(), &body["type"]), (429, &json!("/problems/rate-limited")));
        assert_eq!(head.headers().get(RETRY_AFTER).unwrap(), seconds, "{millis} ms");
    }
}

#[actix_web::test]
async fn every_refusal_of_authentication_has_its_status() {
    for (error, status) in [
        (AuthError::WrongPassword, 403),
        (AuthError::Denied(Denied::Forbidden), 403),
        (AuthError::SessionNeeded, 403),
        (AuthError::RegistrationClosed, 403),
        (AuthError::NoAccount, 404),
        (AuthError::NoApiKey, 404),
        (AuthError::AccountExists, 409),
        (AuthError::LastAdmin, 409),
        (AuthError::TooManyKeys, 409),
        (AuthError::Invalid(Problems::one(Pointer::root(), "is wrong")), 422),
        (AuthError::NoRandomness, 500),
        (AuthError::Overloaded, 503),
    ] {
        let text = error.to_string();
        assert_eq!(answered(error.into()).await.0.status(), status, "{text}");
    }
}

#[actix_web::test]
async fn what_a_project_does_not_allow_is_a_conflict_and_what_is_missing_is_not_found() {
    for conflict in [Conflict::LastOwner, Conflict::DefaultProject, Conflict::RunsActive] {
        let text = conflict.to_string();
        assert_eq!(answered(ControlError::Conflict(conflict).into()).await.0.status(), 409, "{text}");
    }
    assert_eq!(answered(ControlError::NotFound.into()).await.0.status(), 404);
    let project = OpenWorkspaceError::NoProject(ProjectId::new());
    assert_eq!(answered(project.into()).await.0.status(), 404);
}

#[actix_web::test]
async fn every_refused_credential_gets_a_challenge() {
    for error in [AuthError::LoginRefused, AuthError::RefreshRefused, AuthError::Revoked] {
        let (head, _) = answered(error.into()).await;
        assert_eq!(head.status(), 401);
        assert!(head.headers().contains_key(WWW_AUTHENTICATE));
    }
}

#[test]
fn every_refusal_of_the_workspace_has_its_status() {
    let path = || "a".to_owned();
    let io = |kind: std::io::ErrorKind| WorkspaceError::Io { doing: "write the file", source: kind.into() };
    for (error, status) in [
        (WorkspaceError::Escape, 403),
        (WorkspaceError::InvalidPath { reason: "a name in it is empty" }, 422),
        (WorkspaceError::NotFound { path: path() }, 404),
        (WorkspaceError::NotAFile { path: path() }, 409),
        (WorkspaceError::NotADirectory { path: path() }, 409),
        (WorkspaceError::NotEmpty { path: path() }, 409),
        (WorkspaceError::PreconditionFailed { path: path() }, 412),
        (WorkspaceError::TooLarge { limit_bytes: 1 }, 413),
        (io(std::io::ErrorKind::PermissionDenied), 403),
        (io(std::io::ErrorKind::StorageFull), 507),
        (io(std::io::ErrorKind::Other), 500),
    ] {
        let text = error.to_string();
        assert_eq!(ProblemDetails::from(error).status(), status, "{text}");
    }
}
