//! People and their roles.

use podium_storage::users::{self, ADMIN, NewUser, UserPatch};

use super::*;

pub(super) fn person(id: &str, role: &str) -> NewUser {
    NewUser {
        id: id.into(),
        name: String::new(),
        role: role.into(),
        disabled: false,
        tokens_valid_after: None,
    }
}

fn as_role(role: &str) -> UserPatch {
    UserPatch {
        role: Some(role.into()),
        ..UserPatch::default()
    }
}

/// The first user must be able to let others in.
#[test]
fn the_first_user_is_an_enabled_admin() {
    with_database(async |db| {
        for first in [
            person("ada", "promoter"),
            NewUser {
                disabled: true,
                ..person("ada", ADMIN)
            },
        ] {
            let refused = users::create(&db.database, &origin(), &first).await;
            assert!(matches!(
                refused,
                Err(ChangeError::Conflict(Conflict::FirstUserNotAdmin))
            ));
        }
        assert_eq!(actions(db).await, Vec::<String>::new());
        let ada = users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        assert_eq!(users::read(&db.database, "ada").await.unwrap(), Some(ada));
        let again = users::create(&db.database, &origin(), &person("ada", ADMIN)).await;
        assert!(matches!(
            again,
            Err(ChangeError::Conflict(Conflict::UserExists))
        ));
        users::create(&db.database, &origin(), &person("bob", "viewer"))
            .await
            .unwrap();
        let second = users::list(&db.database, Some("ada"), 10).await.unwrap();
        assert_eq!(
            second
                .iter()
                .map(|user| user.id.as_str())
                .collect::<Vec<_>>(),
            ["bob"]
        );
        assert_eq!(
            users::list(&db.database, None, 1).await.unwrap()[0].id,
            "ada"
        );
    });
}

/// The last enabled admin cannot be demoted, disabled or deleted, but changed otherwise.
#[test]
fn the_last_admin_stays() {
    with_database(async |db| {
        users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        users::create(
            &db.database,
            &origin(),
            &NewUser {
                disabled: true,
                ..person("eve", ADMIN)
            },
        )
        .await
        .unwrap();
        let change = async |patch: UserPatch| {
            users::patch(&db.database, &origin(), "ada", &ANY, &patch).await
        };
        let disable = UserPatch {
            disabled: Some(true),
            ..UserPatch::default()
        };
        for patch in [as_role("promoter"), disable.clone()] {
            assert!(matches!(
                change(patch).await,
                Err(ChangeError::Conflict(Conflict::LastAdmin))
            ));
        }
        let refused = users::delete(&db.database, &origin(), "ada", &ANY).await;
        assert!(matches!(
            refused,
            Err(ChangeError::Conflict(Conflict::LastAdmin))
        ));
        let renamed = change(UserPatch {
            name: Some("Ada".into()),
            ..UserPatch::default()
        })
        .await
        .unwrap();
        assert_eq!(renamed.name, "Ada");
        let enable = UserPatch {
            disabled: Some(false),
            ..UserPatch::default()
        };
        users::patch(&db.database, &origin(), "eve", &ANY, &enable)
            .await
            .unwrap();
        assert!(change(disable).await.unwrap().disabled);
        users::delete(&db.database, &origin(), "ada", &ANY)
            .await
            .unwrap();
        let missing = users::delete(&db.database, &origin(), "ada", &ANY).await;
        assert!(matches!(missing, Err(ChangeError::NotFound(_))));
    });
}

/// Two admins demote each other at the same moment, many times over: one of them stays.
#[test]
fn two_admins_cannot_demote_each_other() {
    with_database(async |db| {
        users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        users::create(&db.database, &origin(), &person("bob", ADMIN))
            .await
            .unwrap();
        let author = origin();
        for _ in 0..10 {
            let demoted = as_role("viewer");
            let (one, two) = tokio::join!(
                users::patch(&db.database, &author, "ada", &ANY, &demoted),
                users::patch(&db.database, &author, "bob", &ANY, &demoted)
            );
            assert!(one.is_ok() != two.is_ok());
            let fallen = if one.is_ok() { "ada" } else { "bob" };
            users::patch(&db.database, &author, fallen, &ANY, &as_role(ADMIN))
                .await
                .unwrap();
        }
    });
}

/// The version of a user is of use for a precondition: it differs after every change.
#[test]
fn a_stale_user_is_not_changed() {
    with_database(async |db| {
        let ada = users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        let read = Precondition::OneOf(vec![ada.version()]);
        let name = |name: &str| UserPatch {
            name: Some(name.into()),
            ..UserPatch::default()
        };
        let (author, first, second) = (origin(), name("one"), name("two"));
        let (one, two) = tokio::join!(
            users::patch(&db.database, &author, "ada", &read, &first),
            users::patch(&db.database, &author, "ada", &read, &second)
        );
        let lost = if one.is_ok() { two } else { one };
        assert!(matches!(lost, Err(ChangeError::Stale { .. })));
    });
}
