//! Projects and their members.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use gathering_auth::{ProjectRole, Role};
use gathering_domain::ProjectId;

use crate::testing::{ControlFixture, member};
use crate::{ControlError, ProjectControl, right};

/// A request that names no project creates things in the caller's default one.
pub async fn what_names_no_project_goes_into_the_default_one<F: ControlFixture>(fixture: &F) {
    let projects = ProjectControl::new(fixture.store());
    let owner = fixture.account(Role::Member).await;
    let default = projects.find_or_default::<right::Write>(&owner, None).await.unwrap();
    assert_eq!(default.membership(), Some(ProjectRole::Owner));
    let other = fixture.project(&owner).await;
    for (named, expected) in [(None, *default.thing()), (Some(other), other)] {
        let found = projects.find_or_default::<right::Write>(&owner, named).await.unwrap();
        assert_eq!(*found.thing(), expected);
    }
    let viewer = fixture.account(Role::Member).await;
    fixture.join(other, &viewer, ProjectRole::Viewer).await;
    let refused = projects.find_or_default::<right::Write>(&viewer, Some(other)).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
    let missing = projects.find_or_default::<right::Write>(&viewer, Some(ProjectId::new())).await;
    assert!(matches!(missing, Err(ControlError::NotFound)), "{missing:?}");
    let homeless = projects.find_or_default::<right::Write>(&member(), None).await;
    let Err(ControlError::Invalid(problems)) = homeless else { panic!("{homeless:?}") };
    assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/project_id");
}
