//! People and their roles.
//!
//! While the table is empty, a bootstrap admin named by the configuration lets others in; from the first row on only
//! the table counts. So the first user must be an admin, and the last enabled admin stays: nobody is ever locked out
//! of the administration for good.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use serde::Serialize;
use tokio_postgres::Row;

use crate::audit::{self, Origin, Subject};
use crate::experiments::change::{ChangeError, Conflict, Precondition};
use crate::experiments::rows::{fetch, one};
use crate::rows::column;
use crate::{Database, StorageError};

/// The role that may do everything, and so manage users.
pub const ADMIN: &str = "admin";

/// Somebody who may use the admin routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The `userId` (or `sub`) of the tokens.
    pub id: String,
    /// For people; may be empty.
    pub name: String,
    /// `viewer`, `editor`, `promoter` or `admin`.
    pub role: String,
    /// Whether every token is refused.
    pub disabled: bool,
    /// Tokens issued earlier are refused.
    pub tokens_valid_after: Option<DateTime<Utc>>,
    /// When the user was created.
    pub created_at: DateTime<Utc>,
    /// When the user was last changed.
    pub updated_at: DateTime<Utc>,
}

impl User {
    /// Changes with every change of the user: microseconds of the last one.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.updated_at.timestamp_micros()
    }

    fn is_enabled_admin(&self) -> bool {
        self.role == ADMIN && !self.disabled
    }
}

/// A user to create.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `User`")]
pub struct NewUser {
    pub id: String,
    pub name: String,
    pub role: String,
    pub disabled: bool,
    pub tokens_valid_after: Option<DateTime<Utc>>,
}

/// Changes of a user; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `User`")]
pub struct UserPatch {
    pub name: Option<String>,
    pub role: Option<String>,
    pub disabled: Option<bool>,
    /// An inner `None` takes the limit away.
    pub tokens_valid_after: Option<Option<DateTime<Utc>>>,
}

impl UserPatch {
    fn applied_to(&self, user: &User) -> User {
        User {
            name: self.name.as_ref().unwrap_or(&user.name).clone(),
            role: self.role.as_ref().unwrap_or(&user.role).clone(),
            disabled: self.disabled.unwrap_or(user.disabled),
            tokens_valid_after: self.tokens_valid_after.unwrap_or(user.tokens_valid_after),
            ..user.clone()
        }
    }
}

/// Columns of a user.
macro_rules! columns {
    () => {
        "id, name, role, disabled, tokens_valid_after, created_at, updated_at"
    };
}

/// Changes take turns, so that two admins cannot demote each other at the same moment. Readers do not wait.
const TAKE_TURN: &str = "-- users::take_turn
LOCK TABLE podium_users IN SHARE ROW EXCLUSIVE MODE";

const ALL: &str = concat!(
    "-- users::all\nSELECT ",
    columns!(),
    " FROM podium_users ORDER BY id"
);

const LIST: &str = concat!(
    "-- users::list\nSELECT ",
    columns!(),
    " FROM podium_users WHERE id > $1 ORDER BY id LIMIT $2"
);

const READ: &str = concat!(
    "-- users::read\nSELECT ",
    columns!(),
    " FROM podium_users WHERE id = $1"
);

const INSERT: &str = concat!(
    "-- users::insert
INSERT INTO podium_users (id, name, role, disabled, tokens_valid_after) VALUES ($1, $2, $3, $4, $5)
RETURNING ",
    columns!()
);

/// The time must rise even when two changes begin in the same microsecond, because it is the version.
const UPDATE: &str = concat!(
    "-- users::update
UPDATE podium_users SET name = $2, role = $3, disabled = $4, tokens_valid_after = $5,
    updated_at = greatest(now(), updated_at + interval '1 microsecond')
WHERE id = $1
RETURNING ",
    columns!()
);

const DELETE: &str = "-- users::delete
DELETE FROM podium_users WHERE id = $1 RETURNING id";

/// At most `limit` users with ids behind `after` (from the first one, when it is `None`), in the order of their ids.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn list(
    database: &Database,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<User>, StorageError> {
    // No id is the empty text, so all are behind it.
    let after = after.unwrap_or_default();
    database
        .serve()
        .await?
        .query(LIST, &[&after, &limit])
        .await?
        .iter()
        .map(user)
        .collect()
}

/// A user, or `None`.
///
/// # Errors
/// As [`list`].
pub async fn read(database: &Database, id: &str) -> Result<Option<User>, StorageError> {
    database
        .serve()
        .await?
        .query_opt(READ, &[&id])
        .await?
        .as_ref()
        .map(user)
        .transpose()
}

/// Creates a user.
///
/// # Errors
/// [`Conflict::UserExists`], [`Conflict::FirstUserNotAdmin`].
pub async fn create(
    database: &Database,
    origin: &Origin,
    new: &NewUser,
) -> Result<User, ChangeError> {
    database
        .transaction(async |tx| {
            let users = lock_all(tx).await?;
            if users.iter().any(|user| user.id == new.id) {
                return Err(Conflict::UserExists.into());
            }
            if users.is_empty() && (new.role != ADMIN || new.disabled) {
                return Err(Conflict::FirstUserNotAdmin.into());
            }
            let created = insert(tx, new).await?;
            audit::append(
                tx,
                origin,
                &subject("create", &created),
                None,
                Some(audit::whole(&created)?),
            )
            .await?;
            Ok(created)
        })
        .await
}

/// Changes a user. A patch that changes nothing leaves no trace.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`], [`Conflict::LastAdmin`].
pub async fn patch(
    database: &Database,
    origin: &Origin,
    id: &str,
    precondition: &Precondition,
    patch: &UserPatch,
) -> Result<User, ChangeError> {
    database
        .transaction(async |tx| {
            let users = lock_all(tx).await?;
            let before = find(&users, id, precondition)?;
            let wanted = patch.applied_to(before);
            if wanted == *before {
                return Ok(wanted);
            }
            if !wanted.is_enabled_admin() {
                check_not_last_admin(&users, before)?;
            }
            let after = update(tx, &wanted).await?;
            let (old, new) = audit::difference(before, &after)?;
            audit::append(tx, origin, &subject("update", &after), Some(old), Some(new)).await?;
            Ok(after)
        })
        .await
}

/// Deletes a user.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`], [`Conflict::LastAdmin`].
pub async fn delete(
    database: &Database,
    origin: &Origin,
    id: &str,
    precondition: &Precondition,
) -> Result<(), ChangeError> {
    database
        .transaction(async |tx| {
            let users = lock_all(tx).await?;
            let before = find(&users, id, precondition)?;
            check_not_last_admin(&users, before)?;
            fetch(tx, DELETE, &[&id]).await?;
            audit::append(
                tx,
                origin,
                &subject("delete", before),
                Some(audit::whole(before)?),
                None,
            )
            .await?;
            Ok(())
        })
        .await
}

fn find<'a>(
    users: &'a [User],
    id: &str,
    precondition: &Precondition,
) -> Result<&'a User, ChangeError> {
    let user = users
        .iter()
        .find(|user| user.id == id)
        .ok_or(ChangeError::NotFound("this user"))?;
    precondition.check(user.version())?;
    Ok(user)
}

fn check_not_last_admin(users: &[User], leaving: &User) -> Result<(), Conflict> {
    let others = users
        .iter()
        .any(|user| user.id != leaving.id && user.is_enabled_admin());
    if others || !leaving.is_enabled_admin() {
        Ok(())
    } else {
        Err(Conflict::LastAdmin)
    }
}

async fn lock_all(tx: &Transaction<'_>) -> Result<Vec<User>, StorageError> {
    tx.batch_execute(TAKE_TURN).await?;
    fetch(tx, ALL, &[]).await?.iter().map(user).collect()
}

async fn insert(tx: &Transaction<'_>, new: &NewUser) -> Result<User, StorageError> {
    let rows = fetch(
        tx,
        INSERT,
        &[
            &new.id,
            &new.name,
            &new.role,
            &new.disabled,
            &new.tokens_valid_after,
        ],
    )
    .await?;
    user(one(&rows, "podium_users")?)
}

async fn update(tx: &Transaction<'_>, wanted: &User) -> Result<User, StorageError> {
    let rows = fetch(
        tx,
        UPDATE,
        &[
            &wanted.id,
            &wanted.name,
            &wanted.role,
            &wanted.disabled,
            &wanted.tokens_valid_after,
        ],
    )
    .await?;
    user(one(&rows, "podium_users")?)
}

fn user(row: &Row) -> Result<User, StorageError> {
    const T: &str = "podium_users";
    Ok(User {
        id: column(row, T, "id")?,
        name: column(row, T, "name")?,
        role: column(row, T, "role")?,
        disabled: column(row, T, "disabled")?,
        tokens_valid_after: column(row, T, "tokens_valid_after")?,
        created_at: column(row, T, "created_at")?,
        updated_at: column(row, T, "updated_at")?,
    })
}

fn subject(verb: &str, user: &User) -> Subject {
    Subject::new("user", verb, &user.id, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(id: &str, role: &str, disabled: bool) -> User {
        User {
            id: id.into(),
            name: String::new(),
            role: role.into(),
            disabled,
            tokens_valid_after: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_an_enabled_admin_can_be_the_last_one() {
        let users = [
            person("a", ADMIN, false),
            person("b", ADMIN, true),
            person("c", "viewer", false),
        ];
        assert_eq!(
            check_not_last_admin(&users, &users[0]),
            Err(Conflict::LastAdmin)
        );
        assert_eq!(check_not_last_admin(&users, &users[1]), Ok(()));
        assert_eq!(check_not_last_admin(&users, &users[2]), Ok(()));
        let users = [person("a", ADMIN, false), person("b", ADMIN, false)];
        assert_eq!(check_not_last_admin(&users, &users[0]), Ok(()));
    }

    #[test]
    fn a_patch_touches_what_it_names() {
        let before = User {
            tokens_valid_after: Some(DateTime::UNIX_EPOCH),
            ..person("a", ADMIN, false)
        };
        let patch = UserPatch {
            disabled: Some(true),
            tokens_valid_after: Some(None),
            ..UserPatch::default()
        };
        let after = patch.applied_to(&before);
        assert_eq!(after, person("a", ADMIN, true));
        assert_eq!(UserPatch::default().applied_to(&before), before);
    }
}
