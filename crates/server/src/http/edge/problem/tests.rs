//! What callers are told.

use actix_web::body::to_bytes;
use serde_json::{Value, json};

use super::*;

async fn answered(problem: Problem) -> (HttpResponse, Value) {
    let response = problem.error_response();
    let (head, body) = response.into_parts();
    let body = serde_json::from_slice(&to_bytes(body).await.unwrap()).unwrap();
    (head.map_into_boxed_body(), body)
}

#[actix_web::test]
async fn an_invalid_input_names_everything_with_its_pointer() {
    let mut problems = Problems::one(Pointer::root().join("name"), "is missing");
    problems.add(Pointer::root().join("definition").join("nodes").join(0), "must be an object");
    let (head, body) = answered(Problem::invalid(problems)).await;
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
    let problem = Problem::internal(std::io::Error::other("the secret of the house"));
    assert!(problem.causes().unwrap().contains("the secret of the house"));
    let (head, body) = answered(problem).await;
    assert_eq!(head.status(), 500);
    assert!(!body.to_string().contains("secret"), "{body}");
}

#[actix_web::test]
async fn a_database_that_is_away_is_no_fault_of_the_caller_and_says_when_to_try_again() {
    let cause = std::io::Error::other("gone");
    let error = DatabaseError::Unavailable { doing: "looking", source: cause.into() };
    let (head, body) = answered(error.into()).await;
    assert_eq!((head.status().as_u16(), body["status"].as_u64()), (503, Some(503)));
    assert!(head.headers().contains_key(RETRY_AFTER));
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
    for refusal in [ProjectRefusal::LastOwner, ProjectRefusal::DefaultProject, ProjectRefusal::RunsActive] {
        assert_eq!(answered(ProjectError::Refused(refusal).into()).await.0.status(), 409, "{refusal}");
    }
    let missing = ProjectError::Database(DatabaseError::Missing { what: "the user" });
    assert_eq!(answered(missing.into()).await.0.status(), 404);
}

#[actix_web::test]
async fn every_refused_credential_gets_a_challenge() {
    for error in [AuthError::LoginRefused, AuthError::RefreshRefused, AuthError::Revoked] {
        let (head, _) = answered(error.into()).await;
        assert_eq!(head.status(), 401);
        assert!(head.headers().contains_key(WWW_AUTHENTICATE));
    }
}
