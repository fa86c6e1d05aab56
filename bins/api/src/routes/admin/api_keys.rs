//! Keys of storefronts and servers.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::http::Method;
use chrono::{DateTime, Utc};
use podium_domain::fault::code;
use podium_storage::api_keys::{self, ApiKey, ApiKeyPatch, NewApiKey, Scope};
use serde::Serialize;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{OpenApi, ToSchema};

use super::common::{
    Answer, NotChanged, NotPatched, NotRead, Page, Query, Refused, carry_out, created, decoded,
    if_match, required_if_match, versioned,
};
use super::read::{self, nullable, owned, refuse_null, refuse_read_only};
use crate::auth::api_keys::FreshKey;
use crate::auth::{Admin, Granted};
use crate::idempotency::WithoutSecret;
use crate::ids;
use crate::json::{Fields, Node};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;

const ALL: &str = "/api/v1/admin/api-keys";
const ONE: &str = "/api/v1/admin/api-keys/{keyId}";
const READ_ONLY: [&str; 8] = [
    "id",
    "prefix",
    "key",
    "createdBy",
    "createdAt",
    "updatedAt",
    "revokedAt",
    "lastUsedAt",
];

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::guarded(Method::GET, ALL, list),
        Route::guarded(Method::POST, ALL, create),
        Route::guarded(Method::GET, ONE, show),
        Route::guarded(Method::PATCH, ONE, patch),
        Route::guarded(Method::DELETE, ONE, revoke),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(list, create, show, patch, revoke))]
pub struct ApiKeysApi;

/// An API key. Its secret is not here: nobody can read it again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyBody {
    /// Numeric id.
    pub id: i64,
    /// Names the key: its third part. In the audit log its actor is `api-key:` and the prefix.
    pub prefix: String,
    /// For people.
    pub name: String,
    /// `client`: assign, track, rank. `server`: also definitions and purchases, without the limit of an address. `admin`: everything.
    #[schema(schema_with = scope)]
    pub scope: &'static str,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to about two minutes.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A key that was made just now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MadeApiKey {
    /// The key itself, shown this once: as `Authorization: Bearer …` or `X-API-Key: …`. Null where the answer is repeated for
    /// an idempotency key.
    pub key: Option<String>,
    /// What is known of it.
    #[serde(flatten)]
    pub about: ApiKeyBody,
}

impl From<ApiKey> for ApiKeyBody {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            prefix: key.prefix,
            name: key.name,
            scope: key.scope.name(),
            created_by: key.created_by,
            created_at: key.created_at,
            updated_at: key.updated_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
        }
    }
}

/// A key to make.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateApiKey {
    /// For people.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub name: String,
    /// What it is good for.
    #[schema(schema_with = scope)]
    pub scope: String,
    /// When it ends by itself; in the future. Never, unless given.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Changes of a key. A member that is left out stays as it is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchApiKey {
    /// For people.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub name: Option<String>,
    /// When it ends by itself; in the future. Null takes the end away.
    pub expires_at: Option<DateTime<Utc>>,
}

fn scope() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Scope::ALL.map(Scope::name)))
        .build()
}

/// Lists keys, newest first, revoked ones too.
#[utoipa::path(get, path = "/api/v1/admin/api-keys", operation_id = "listApiKeys", tag = "API keys",
    security(("bearer" = [])),
    params(
        ("limit" = Option<i64>, Query, description = "Entries of a page; 50 unless given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, description = "One page", body = Page<ApiKeyBody>), Refused))]
pub async fn list(ctx: Rc<Ctx>, _: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(&ctx);
    let (limit, cursor) = (query.limit(), query.cursor());
    query.finish()?;
    let found = api_keys::list(&ctx.state.database, cursor, limit + 1).await?;
    Page::new(found, limit, |last| last.id.to_string(), ApiKeyBody::from).answer()
}

/// Makes a key and shows it, this once.
#[utoipa::path(post, path = "/api/v1/admin/api-keys", operation_id = "createApiKey", tag = "API keys",
    security(("bearer" = [])), request_body = CreateApiKey,
    responses(
        (status = 201, description = "Made", body = Answer<MadeApiKey>,
            headers(("Location" = String, description = "Where it is"), ("ETag" = String, description = "Its version"))),
        NotChanged))]
pub async fn create(ctx: Rc<Ctx>, granted: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let now = ctx.state.clock.now();
    let (name, scope, expires_at) = read::body(&ctx, |fields| new_key(fields, now)).await?;
    let random = |error: String| ApiError::internal(&error);
    let fresh = FreshKey::new(
        scope,
        ids::secret().map_err(random)?,
        ids::secret().map_err(random)?,
    );
    let new = NewApiKey {
        prefix: fresh.prefix,
        name,
        scope,
        digest: fresh.digest,
        expires_at,
    };
    let made = carry_out(&ctx, &granted, async move |database, origin| {
        api_keys::create(database, origin, &new).await
    })
    .await?;
    let (version, location) = (made.version(), format!("{ALL}/{}", made.id));
    let mut shown = MadeApiKey {
        key: None,
        about: made.into(),
    };
    let without = created(&shown, version, &location)?;
    shown.key = Some(fresh.key);
    let mut response = created(&shown, version, &location)?;
    // What is kept for an idempotency key must not open anything.
    if let Ok(body) = without.into_body().try_into_bytes() {
        response.extensions_mut().insert(WithoutSecret(body));
    }
    Ok(response)
}

/// Reads what is known of a key.
#[utoipa::path(get, path = "/api/v1/admin/api-keys/{keyId}", operation_id = "readApiKey", tag = "API keys",
    security(("bearer" = [])),
    params(("keyId" = i64, Path, description = "Id of the key")),
    responses(
        (status = 200, description = "The key", body = Answer<ApiKeyBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotRead))]
pub async fn show(ctx: Rc<Ctx>, _: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let found = api_keys::read(&ctx.state.database, key_of(&ctx)?).await?;
    answer(found.ok_or_else(unknown)?)
}

/// Changes a key's name or end. What it is good for never changes.
#[utoipa::path(patch, path = "/api/v1/admin/api-keys/{keyId}", operation_id = "patchApiKey", tag = "API keys",
    security(("bearer" = [])), request_body = PatchApiKey,
    params(
        ("keyId" = i64, Path, description = "Id of the key"),
        ("If-Match" = String, Header, description = "ETag of the last read, or `*`")),
    responses(
        (status = 200, description = "The key after the change", body = Answer<ApiKeyBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotPatched))]
pub async fn patch(ctx: Rc<Ctx>, granted: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let now = ctx.state.clock.now();
    let patch = read::body(&ctx, |fields| key_patch(fields, now)).await?;
    let (id, when) = (key_of(&ctx)?, required_if_match(&ctx)?);
    let changed = carry_out(&ctx, &granted, async move |database, origin| {
        api_keys::patch(database, origin, id, &when, &patch).await
    })
    .await?;
    answer(changed)
}

/// Revokes a key: on this replica before the answer, on all others within a second. It stays in the list.
#[utoipa::path(delete, path = "/api/v1/admin/api-keys/{keyId}", operation_id = "revokeApiKey", tag = "API keys",
    security(("bearer" = [])),
    params(
        ("keyId" = i64, Path, description = "Id of the key"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
    responses(
        (status = 200, description = "The revoked key", body = Answer<ApiKeyBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotChanged))]
pub async fn revoke(ctx: Rc<Ctx>, granted: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let (id, when) = (key_of(&ctx)?, if_match(&ctx));
    let revoked = carry_out(&ctx, &granted, async move |database, origin| {
        api_keys::revoke(database, origin, id, &when).await
    })
    .await?;
    answer(revoked)
}

fn answer(key: ApiKey) -> Result<HttpResponse, ApiError> {
    let version = key.version();
    versioned(200, ApiKeyBody::from(key), version)
}

fn unknown() -> ApiError {
    ApiError::not_found("this API key")
}

fn key_of(ctx: &Ctx) -> Result<i64, ApiError> {
    let id = decoded(ctx, "keyId").parse().ok();
    id.filter(|id: &i64| *id > 0).ok_or_else(unknown)
}

fn new_key(
    fields: &mut Fields<'_, '_>,
    now: DateTime<Utc>,
) -> Option<(String, Scope, Option<DateTime<Utc>>)> {
    refuse_read_only(fields, &READ_ONLY);
    let name = owned(fields.string("name", 1, 128));
    let name = fields.require("name", name);
    let scope = scope_name(fields);
    let scope = fields.require("scope", scope);
    let end = fields
        .take("expiresAt")
        .and_then(|node| future(fields, node, now));
    Some((name?, scope?, end))
}

fn key_patch(fields: &mut Fields<'_, '_>, now: DateTime<Utc>) -> Option<ApiKeyPatch> {
    refuse_read_only(fields, &READ_ONLY);
    refuse_read_only(fields, &["scope"]);
    refuse_null(fields, &["name"]);
    Some(ApiKeyPatch {
        name: owned(fields.string("name", 1, 128)),
        expires_at: nullable(fields, "expiresAt", |fields, name| {
            let node = fields.take(name)?;
            future(fields, node, now)
        }),
    })
}

fn scope_name(fields: &mut Fields<'_, '_>) -> Option<Scope> {
    let scope = Scope::parse(fields.string("scope", 1, 32)?);
    if scope.is_none() {
        let names = Scope::ALL.map(Scope::name).join(", ");
        fields.fault(
            "scope",
            code::UNKNOWN_VALUE,
            format!("must be one of {names}"),
        );
    }
    scope
}

/// A time in the future: a key that has ended already is a mistake.
fn future(
    fields: &mut Fields<'_, '_>,
    node: &Node<'_>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    const NAME: &str = "expiresAt";
    let Node::String(text) = node else {
        fields.fault(NAME, code::WRONG_TYPE, "must be an RFC 3339 time with zone");
        return None;
    };
    match DateTime::parse_from_rfc3339(text) {
        // PostgreSQL's times end long after this year and chrono's; both end somewhere.
        Ok(time) if time > now && time.to_utc().timestamp() < 253_402_300_800 => {
            Some(time.to_utc())
        }
        Ok(_) => {
            fields.fault(NAME, code::OUT_OF_RANGE, "must be in the future");
            None
        }
        Err(_) => {
            fields.fault(
                NAME,
                code::INVALID_TEXT,
                "must be an RFC 3339 time with zone",
            );
            None
        }
    }
}
