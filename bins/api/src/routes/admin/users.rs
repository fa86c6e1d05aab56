//! People and their roles.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use chrono::{DateTime, TimeDelta, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use podium_domain::fault::code;
use podium_domain::text;
use podium_storage::users::{self, NewUser, User, UserPatch};
use serde::Serialize;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{OpenApi, ToSchema};

use super::common::{
    Answer, Deleted, NotChanged, NotPatched, NotRead, Page, Query, Refused, carry_out, created,
    decoded, deleted, if_match, required_if_match, versioned,
};
use super::read::{self, nullable, owned, refuse_null, refuse_read_only};
use crate::auth::{Admin, Granted, Role};
use crate::json::{Fields, Node};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;

const ALL: &str = "/api/v1/admin/users";
const ONE: &str = "/api/v1/admin/users/{userId}";
/// Characters of an id.
const ID: usize = 255;
/// Clocks of client and server may differ by this much.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
const ROLES: [Role; 4] = [Role::Viewer, Role::Editor, Role::Promoter, Role::Admin];

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::guarded(Method::GET, ALL, list),
        Route::guarded(Method::POST, ALL, create),
        Route::guarded(Method::GET, ONE, show),
        Route::guarded(Method::PATCH, ONE, patch),
        Route::guarded(Method::DELETE, ONE, delete),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(list, create, show, patch, delete))]
pub struct UsersApi;

/// Somebody who may use the admin routes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
#[serde(rename_all = "camelCase")]
pub struct UserBody {
    /// The `userId` (or `sub`) of the tokens, as text.
    pub id: String,
    /// For people.
    pub name: String,
    /// What the user may do.
    #[schema(schema_with = role)]
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

impl From<User> for UserBody {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            name: user.name,
            role: user.role,
            disabled: user.disabled,
            tokens_valid_after: user.tokens_valid_after,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// A user to create. A member that is null counts as left out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateUser {
    /// The `userId` (or `sub`) of the tokens: text, or a whole number, taken as its text.
    #[schema(schema_with = user_id)]
    pub id: String,
    /// For people.
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub name: Option<String>,
    /// What the user may do.
    #[schema(schema_with = role)]
    pub role: String,
    /// Whether every token is refused; false unless given.
    pub disabled: Option<bool>,
    /// Tokens issued earlier are refused; not in the future.
    pub tokens_valid_after: Option<DateTime<Utc>>,
}

/// Changes of a user. A member that is left out stays as it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchUser {
    /// For people.
    #[schema(value_type = String, required = false, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub name: Option<String>,
    /// What the user may do.
    #[schema(schema_with = role, required = false)]
    pub role: Option<String>,
    /// Whether every token is refused.
    #[schema(value_type = bool, required = false)]
    pub disabled: Option<bool>,
    /// Tokens issued earlier are refused; not in the future; null takes the limit away.
    pub tokens_valid_after: Option<DateTime<Utc>>,
}

fn role() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(ROLES.map(Role::name)))
        .build()
}

fn user_id() -> Object {
    ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::SchemaType::from_iter([
            Type::String,
            Type::Integer,
        ]))
        .min_length(Some(1))
        .max_length(Some(ID))
        .pattern(Some(r"^[^\x00-\x1f\x7f]*$"))
        .minimum(Some(-999_999_999_999_999_999_i64))
        .maximum(Some(i64::MAX))
        .build()
}

/// Lists users in the order of their ids.
#[utoipa::path(get, path = "/api/v1/admin/users", operation_id = "listUsers", tag = "Users",
    security(("bearer" = [])),
    params(
        ("limit" = Option<i64>, Query, description = "Entries of a page; 50 unless given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, description = "One page", body = Page<UserBody>), Refused))]
pub async fn list(ctx: Rc<Ctx>, _: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(&ctx);
    let (limit, cursor) = (query.limit(), query.text("cursor", ID));
    query.finish()?;
    let found = users::list(&ctx.state.database, cursor.as_deref(), limit + 1).await?;
    Page::new(found, limit, |last| last.id.clone(), UserBody::from).answer()
}

/// Creates a user. The first one must be an enabled admin: from then on the bootstrap admin has no access of his own.
#[utoipa::path(post, path = "/api/v1/admin/users", operation_id = "createUser", tag = "Users",
    security(("bearer" = [])), request_body = CreateUser,
    responses(
        (status = 201, description = "Created", body = Answer<UserBody>,
            headers(("Location" = String, description = "Where it is"), ("ETag" = String, description = "Its version"))),
        NotChanged))]
pub async fn create(ctx: Rc<Ctx>, granted: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let now = ctx.state.clock.now();
    let new = read::body(&ctx, |fields| new_user(fields, now)).await?;
    let made = carry_out(&ctx, &granted, async move |database, origin| {
        users::create(database, origin, &new).await
    })
    .await?;
    let location = format!("{ALL}/{}", utf8_percent_encode(&made.id, NON_ALPHANUMERIC));
    let version = made.version();
    created(UserBody::from(made), version, &location)
}

/// Reads a user.
#[utoipa::path(get, path = "/api/v1/admin/users/{userId}", operation_id = "readUser", tag = "Users",
    security(("bearer" = [])),
    params(("userId" = String, Path, description = "Id of the user")),
    responses(
        (status = 200, description = "The user", body = Answer<UserBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotRead))]
pub async fn show(ctx: Rc<Ctx>, _: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let found = users::read(&ctx.state.database, &user_of(&ctx)?).await?;
    answer(found.ok_or_else(|| ApiError::not_found("this user"))?)
}

/// Changes a user. The last enabled admin can neither be demoted nor disabled.
#[utoipa::path(patch, path = "/api/v1/admin/users/{userId}", operation_id = "patchUser", tag = "Users",
    security(("bearer" = [])), request_body = PatchUser,
    params(
        ("userId" = String, Path, description = "Id of the user"),
        ("If-Match" = String, Header, description = "ETag of the last read, or `*`")),
    responses(
        (status = 200, description = "The user after the change", body = Answer<UserBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotPatched))]
pub async fn patch(ctx: Rc<Ctx>, granted: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let now = ctx.state.clock.now();
    let patch = read::body(&ctx, |fields| user_patch(fields, now)).await?;
    let (id, when) = (user_of(&ctx)?, required_if_match(&ctx)?);
    let changed = carry_out(&ctx, &granted, async move |database, origin| {
        users::patch(database, origin, &id, &when, &patch).await
    })
    .await?;
    answer(changed)
}

/// Deletes a user, but not the last enabled admin.
#[utoipa::path(delete, path = "/api/v1/admin/users/{userId}", operation_id = "deleteUser", tag = "Users",
    security(("bearer" = [])),
    params(
        ("userId" = String, Path, description = "Id of the user"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
    responses((status = 200, description = "Deleted", body = Answer<Deleted>), NotChanged))]
pub async fn delete(ctx: Rc<Ctx>, granted: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let (id, when) = (user_of(&ctx)?, if_match(&ctx));
    carry_out(&ctx, &granted, async move |database, origin| {
        users::delete(database, origin, &id, &when).await
    })
    .await?;
    deleted()
}

fn answer(user: User) -> Result<HttpResponse, ApiError> {
    let version = user.version();
    versioned(200, UserBody::from(user), version)
}

/// The user of the path. What cannot be an id names nobody.
fn user_of(ctx: &Ctx) -> Result<String, ApiError> {
    let id = decoded(ctx, "userId");
    match text::check_unit_id(&id) {
        Ok(()) => Ok(id),
        Err(_) => Err(ApiError::not_found("this user")),
    }
}

fn new_user(fields: &mut Fields<'_, '_>, now: DateTime<Utc>) -> Option<NewUser> {
    refuse_read_only(fields, &["createdAt", "updatedAt"]);
    let id = fields.key("id", ID);
    let id = fields.require("id", id);
    let patch = user_fields(fields, now);
    let role = fields.require("role", patch.role);
    Some(NewUser {
        id: id?.to_owned(),
        name: patch.name.unwrap_or_default(),
        role: role?,
        disabled: patch.disabled.unwrap_or(false),
        tokens_valid_after: patch.tokens_valid_after.flatten(),
    })
}

fn user_patch(fields: &mut Fields<'_, '_>, now: DateTime<Utc>) -> Option<UserPatch> {
    refuse_read_only(fields, &["id", "createdAt", "updatedAt"]);
    refuse_null(fields, &["name", "role", "disabled"]);
    Some(user_fields(fields, now))
}

fn user_fields(fields: &mut Fields<'_, '_>, now: DateTime<Utc>) -> UserPatch {
    UserPatch {
        name: owned(fields.string("name", 0, 128)),
        role: role_name(fields),
        disabled: fields.boolean("disabled"),
        tokens_valid_after: nullable(fields, "tokensValidAfter", |fields, name| {
            past(fields, name, now)
        }),
    }
}

fn role_name(fields: &mut Fields<'_, '_>) -> Option<String> {
    let role = Role::parse(fields.string("role", 0, 32)?);
    if role.is_none() {
        let names = ROLES.map(Role::name).join(", ");
        fields.fault(
            "role",
            code::UNKNOWN_VALUE,
            format!("must be one of {names}"),
        );
    }
    role.map(|role| role.name().to_owned())
}

/// A time that is not in the future: one that is would shut the last admin out until then.
fn past(fields: &mut Fields<'_, '_>, name: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let Node::String(text) = fields.take(name)? else {
        fields.fault(name, code::WRONG_TYPE, "must be an RFC 3339 time with zone");
        return None;
    };
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) if (DateTime::UNIX_EPOCH..=now + AHEAD).contains(&time.to_utc()) => {
            Some(time.to_utc())
        }
        Ok(_) => {
            fields.fault(name, code::OUT_OF_RANGE, "must not be in the future");
            None
        }
        Err(_) => {
            fields.fault(
                name,
                code::INVALID_TEXT,
                "must be an RFC 3339 time with zone",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use podium_domain::fault::Pointer;

    fn faults<T>(body: &str, read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>) -> Vec<String> {
        let node = json::parse(body.as_bytes()).unwrap();
        let mut fields = Fields::new(&node, Pointer::root());
        read(&mut fields);
        fields.refuse_unknown();
        let found = fields.faults.iter();
        found
            .map(|fault| format!("{} {}", fault.pointer, fault.code))
            .collect()
    }

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    #[test]
    fn every_wrong_field_of_a_user_is_named() {
        let body = r#"{"id":1.5,"role":"boss","disabled":"no","tokensValidAfter":"1970-01-02T00:00:00Z","createdAt":1}"#;
        assert_eq!(
            faults(body, |fields| new_user(fields, NOW)),
            [
                "/createdAt read_only",
                "/id wrong_type",
                "/role unknown_value",
                "/disabled wrong_type",
                "/tokensValidAfter out_of_range"
            ]
        );
        assert_eq!(
            faults("{}", |fields| new_user(fields, NOW)),
            ["/id required", "/role required"]
        );
        let patch = r#"{"id":"a","role":null,"tokens_valid_after":"yesterday"}"#;
        assert_eq!(
            faults(patch, |fields| user_patch(fields, NOW)),
            [
                "/id read_only",
                "/role wrong_type",
                "/tokens_valid_after invalid_text"
            ]
        );
    }

    #[test]
    fn an_id_may_be_a_number_and_a_limit_may_be_taken_away() {
        let node = json::parse(br#"{"id":7,"role":"admin"}"#).unwrap();
        let mut fields = Fields::new(&node, Pointer::root());
        assert_eq!(new_user(&mut fields, NOW).unwrap().id, "7");
        let node = json::parse(br#"{"tokensValidAfter":null}"#).unwrap();
        let mut fields = Fields::new(&node, Pointer::root());
        assert_eq!(
            user_patch(&mut fields, NOW).unwrap().tokens_valid_after,
            Some(None)
        );
    }
}
