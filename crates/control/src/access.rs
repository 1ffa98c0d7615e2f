//! The border: a thing gets past it only together with the caller who may act on it.
//!
//! A store finds things and says what the caller is in their project ([`Found`]). Only this crate makes a [`Scoped`]
//! out of that, after it has checked the right. A port that writes takes a [`Scoped`] or a [`Caller`], so a write that
//! nobody authorized does not compile.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use gathering_auth::{Account, Action, Caller, Origin, ProjectRole, Role, authorize};
use gathering_domain::{ProjectId, UserId};

use crate::ControlError;

/// The rights that a [`Scoped`] thing can carry, as types.
pub mod right {
    use gathering_auth::Action;

    /// A right to act on a thing of a project.
    pub trait Right: sealed::Sealed + Send + Sync + 'static {
        /// The action that the caller must be allowed.
        const ACTION: Action;
    }

    mod sealed {
        pub trait Sealed {}
    }

    macro_rules! rights {
        ($($(#[$doc:meta])* $name:ident,)+) => {$(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $name {}

            impl sealed::Sealed for $name {}

            impl Right for $name {
                const ACTION: Action = Action::$name;
            }
        )+};
    }

    rights! {
        /// To see it.
        Read,
        /// To change or delete it.
        Write,
        /// To start, cancel and rerun runs, and to decide approvals.
        Run,
        /// To change the project itself, its members and its budgets.
        Manage,
    }
}

use right::Right;

/// What a store found, and the caller's role in the project that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The thing.
    pub thing: T,
    /// The caller's role in its project; `None` if the caller is not a member.
    pub membership: Option<ProjectRole>,
}

/// A caller's account and membership, as a store reads them while it holds the lock of the project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CurrentAccess {
    /// The account, also if it is disabled; `None` if it is gone.
    pub account: Option<Account>,
    /// The account's role in the project; `None` if it is not a member.
    pub membership: Option<ProjectRole>,
}

impl CurrentAccess {
    /// Whether the caller may still do `action` in the project. They have at most the role with which they were
    /// authenticated: what an account gained since is for its next request.
    pub(crate) fn check(&self, caller: &Caller, action: Action) -> Result<(), ControlError> {
        let account = self.account.as_ref().filter(|account| account.is_active);
        let role = caller.role.min(account.ok_or(ControlError::Revoked)?.role);
        Ok(authorize(&Caller { role, ..caller.clone() }, self.membership, action)?)
    }
}

/// Something that belongs to a project.
pub trait OfProject {
    /// The project.
    fn project(&self) -> ProjectId;
}

impl OfProject for ProjectId {
    fn project(&self) -> ProjectId {
        *self
    }
}

/// The person at the machine's own command line, to whom its local projects belong.
///
/// They need no account: a person who can start the program there can read the files and the database anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator;

/// Who acts on a [`Scoped`] thing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Principal {
    Caller(Caller),
    Operator,
}

/// A thing, together with a caller who may do `R` with it.
///
/// It is made by this crate only, by finding the thing as the caller: a member without the right gets
/// [`ControlError::Forbidden`], and a caller who is not a member gets [`ControlError::NotFound`], as if the thing were
/// absent. What was allowed then can be taken away since; writes that depend on it check again under a lock.
///
/// It cannot be made by hand:
///
/// ```compile_fail,E0451
/// use gathering_control::{Scoped, right};
/// use gathering_domain::ProjectId;
///
/// let scoped = Scoped::<ProjectId, right::Write> { thing: ProjectId::new() };
/// ```
///
/// A write does not take a bare id:
///
/// ```compile_fail,E0308
/// use gathering_control::{ControlStore, PlannedRun};
/// use gathering_domain::ProjectId;
///
/// async fn accept(store: &dyn ControlStore, project: ProjectId, run: PlannedRun) {
///     let _accepted = store.accept_run(&project, &run).await;
/// }
/// ```
///
/// The right to run things in the project is what it takes:
///
/// ```
/// use gathering_control::{ControlStore, PlannedRun, Scoped, right};
/// use gathering_domain::ProjectId;
///
/// async fn accept(store: &dyn ControlStore, project: Scoped<ProjectId, right::Run>, run: PlannedRun) {
///     let _accepted = store.accept_run(&project, &run).await;
/// }
/// ```
///
/// And the right to read it is not enough:
///
/// ```compile_fail,E0308
/// use gathering_control::{ControlStore, PlannedRun, Scoped, right};
/// use gathering_domain::ProjectId;
///
/// async fn accept(store: &dyn ControlStore, project: Scoped<ProjectId, right::Read>, run: PlannedRun) {
///     let _accepted = store.accept_run(&project, &run).await;
/// }
/// ```
pub struct Scoped<T, R> {
    thing: T,
    principal: Principal,
    membership: Option<ProjectRole>,
    right: PhantomData<fn() -> R>,
}

impl<T, R: Right> Scoped<T, R> {
    /// What was found, if the caller may do `R` with it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a thing that is absent or that the caller may not see;
    /// [`ControlError::Forbidden`] for a member whose role, or API key, lacks the right.
    pub(crate) fn check(caller: &Caller, found: Option<Found<T>>) -> Result<Self, ControlError> {
        let Found { thing, membership } = found.ok_or(ControlError::NotFound)?;
        authorize(caller, membership, R::ACTION)?;
        Ok(Self { thing, principal: Principal::Caller(caller.clone()), membership, right: PhantomData })
    }

    /// Checks the right again with what a store read under the lock of the project, where it cannot change before the
    /// write. The [`Operator`] keeps every right.
    ///
    /// # Errors
    /// [`ControlError::Revoked`] if the account is disabled or gone; [`ControlError::NotFound`] or
    /// [`ControlError::Forbidden`] if the caller lost the right.
    pub fn check_again(&self, now: &CurrentAccess) -> Result<(), ControlError> {
        match &self.principal {
            Principal::Caller(caller) => now.check(caller, R::ACTION),
            Principal::Operator => Ok(()),
        }
    }

    /// What belongs to the operator, who may do everything with it.
    pub(crate) fn of_operator(_: Operator, thing: T) -> Self {
        Self { thing, principal: Principal::Operator, membership: None, right: PhantomData }
    }

    /// The same right to the project that the thing belongs to.
    pub(crate) fn in_project(&self) -> Scoped<ProjectId, R>
    where
        T: OfProject,
    {
        self.with(self.thing.project())
    }

    /// The same right to another thing of the same project.
    pub(crate) fn with<U>(&self, thing: U) -> Scoped<U, R> {
        let Self { principal, membership, .. } = self;
        Scoped { thing, principal: principal.clone(), membership: *membership, right: PhantomData }
    }
}

impl<T, R> Scoped<T, R> {
    /// The thing.
    pub const fn thing(&self) -> &T {
        &self.thing
    }

    /// The thing, without the right.
    pub fn into_thing(self) -> T {
        self.thing
    }

    /// The caller; `None` if it is the [`Operator`].
    pub const fn caller(&self) -> Option<&Caller> {
        match &self.principal {
            Principal::Caller(caller) => Some(caller),
            Principal::Operator => None,
        }
    }

    /// The caller's account; `None` if it is the [`Operator`].
    pub fn user(&self) -> Option<UserId> {
        self.caller().map(|caller| caller.user)
    }

    /// The origin of the request; unknown for the [`Operator`].
    pub(crate) fn origin(&self) -> Origin {
        self.caller().map(|caller| caller.origin).unwrap_or_default()
    }

    /// The caller's role in the project; `None` if they are not a member, as an admin may be.
    pub const fn membership(&self) -> Option<ProjectRole> {
        self.membership
    }
}

impl<T, R> Deref for Scoped<T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.thing
    }
}

impl<T: fmt::Debug, R: Right> fmt::Debug for Scoped<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped")
            .field("thing", &self.thing)
            .field("user", &self.user())
            .field("right", &R::ACTION)
            .finish_non_exhaustive()
    }
}

/// Whose things a list shows to this caller: those of every project to an admin (`None`), else those of the projects
/// that the account is a member of.
///
/// # Errors
/// [`ControlError::Forbidden`] for an API key without the scope to read.
pub fn visible_to(caller: &Caller) -> Result<Option<UserId>, ControlError> {
    authorize_credential(caller, Action::Read)?;
    Ok(match caller.role {
        Role::Admin => None,
        Role::Member => Some(caller.user),
    })
}

/// Whether the caller's credential is enough for `action`, where no project is concerned. A session always is.
///
/// # Errors
/// [`ControlError::Forbidden`] for an API key without the scope.
pub fn authorize_credential(caller: &Caller, action: Action) -> Result<(), ControlError> {
    if caller.credential.allows(action) { Ok(()) } else { Err(ControlError::Forbidden) }
}

#[cfg(test)]
mod tests {
    use gathering_auth::Scope;

    use super::*;
    use crate::testing::{account_of, key_caller, member, session_caller};

    fn found(membership: Option<ProjectRole>) -> Option<Found<ProjectId>> {
        Some(Found { thing: ProjectId::new(), membership })
    }

    #[test]
    fn a_stranger_learns_nothing_and_a_member_without_the_right_is_refused() {
        let caller = member();
        let check = Scoped::<ProjectId, right::Write>::check;
        assert!(matches!(check(&caller, None), Err(ControlError::NotFound)));
        assert!(matches!(check(&caller, found(None)), Err(ControlError::NotFound)));
        assert!(matches!(check(&caller, found(Some(ProjectRole::Viewer))), Err(ControlError::Forbidden)));
        let scoped = check(&caller, found(Some(ProjectRole::Editor))).unwrap();
        assert_eq!((scoped.user(), scoped.membership()), (Some(caller.user), Some(ProjectRole::Editor)));
    }

    #[test]
    fn a_right_that_was_lost_is_refused_under_the_lock() {
        let caller = member();
        let scoped =
            Scoped::<ProjectId, right::Write>::check(&caller, found(Some(ProjectRole::Editor))).unwrap();
        let again = |account, membership| scoped.check_again(&CurrentAccess { account, membership });
        let account = |role| Some(account_of(&caller, role));
        assert!(again(account(Role::Member), Some(ProjectRole::Editor)).is_ok());
        let weaker = again(account(Role::Member), Some(ProjectRole::Viewer));
        assert!(matches!(weaker, Err(ControlError::Forbidden)), "{weaker:?}");
        assert!(matches!(again(account(Role::Member), None), Err(ControlError::NotFound)));
        let gained = again(account(Role::Admin), None);
        assert!(matches!(gained, Err(ControlError::NotFound)), "authenticated as a member: {gained:?}");
        let disabled = Account { is_active: false, ..account_of(&caller, Role::Member) };
        for gone in [Some(disabled), None] {
            let revoked = again(gone, Some(ProjectRole::Editor));
            assert!(matches!(revoked, Err(ControlError::Revoked)), "{revoked:?}");
        }
    }

    #[test]
    fn a_caller_who_is_no_admin_any_more_has_the_rights_of_the_membership() {
        let caller = session_caller(UserId::new(), Role::Admin);
        let scoped = Scoped::<ProjectId, right::Manage>::check(&caller, found(None)).unwrap();
        let again = |role, membership| {
            scoped.check_again(&CurrentAccess { account: Some(account_of(&caller, role)), membership })
        };
        assert!(again(Role::Admin, None).is_ok());
        assert!(matches!(again(Role::Member, None), Err(ControlError::NotFound)));
        assert!(matches!(again(Role::Member, Some(ProjectRole::Editor)), Err(ControlError::Forbidden)));
        assert!(again(Role::Member, Some(ProjectRole::Owner)).is_ok());
    }

    #[test]
    fn a_list_shows_an_api_key_no_more_than_its_scopes_and_its_owner_may_see() {
        let reader = key_caller(Role::Member, &[Scope::Read]);
        assert_eq!(visible_to(&reader).unwrap(), Some(reader.user));
        assert_eq!(visible_to(&key_caller(Role::Admin, &[Scope::Admin])).unwrap(), None);
        for role in Role::ALL {
            assert!(matches!(visible_to(&key_caller(role, &[])), Err(ControlError::Forbidden)));
        }
    }

    #[test]
    fn an_api_key_needs_the_scope_of_what_it_does() {
        let manager = key_caller(Role::Member, &[Scope::Manage]);
        assert!(authorize_credential(&manager, Action::Manage).is_ok());
        assert!(authorize_credential(&manager, Action::Read).is_ok());
        assert!(matches!(authorize_credential(&manager, Action::Write), Err(ControlError::Forbidden)));
        let owner = found(Some(ProjectRole::Owner));
        let written = Scoped::<ProjectId, right::Write>::check(&manager, owner);
        assert!(matches!(written, Err(ControlError::Forbidden)));
    }
}
