//! What the admin handlers share: whom a path means, which version a client expects, who asks, and how they answer.

use std::collections::BTreeMap;
use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::rt;
use podium_domain::experiment::UnknownWord;
use podium_domain::fault::{Faults, code};
use podium_domain::ids::VariantId;
use podium_domain::text;
use podium_storage::Database;
use podium_storage::audit::Origin;
use podium_storage::experiments::{ChangeError, ExperimentRef, Precondition};
use serde::Serialize;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::auth::{Granted, RequiredRole};
use crate::problem::{ApiError, Code};
use crate::request::{Ctx, admin_json};

/// Entries of a page where the client does not say.
const DEFAULT_LIMIT: i64 = 50;
/// Most entries of a page.
const MAX_LIMIT: i64 = 200;

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound(what) => Self::not_found(what),
            ChangeError::Conflict(conflict) => Self::conflict(conflict.to_string()),
            ChangeError::Stale { current } => Self::new(
                Code::PreconditionFailed,
                format!("it was changed since it was read; its ETag is now \"{current}\""),
            ),
            ChangeError::Invalid(faults) => Self::validation(faults),
            ChangeError::Storage(error) => error.into(),
        }
    }
}

/// A path parameter with every escape decoded. The router leaves `%25`, `%2F` and `%2B` as they are.
pub(crate) fn decoded(ctx: &Ctx, name: &str) -> String {
    percent_encoding::percent_decode_str(ctx.path(name))
        .decode_utf8_lossy()
        .into_owned()
}

/// The experiment of the path: its id or its name.
pub(crate) fn experiment(ctx: &Ctx) -> Result<ExperimentRef, ApiError> {
    ExperimentRef::parse(&decoded(ctx, "id")).ok_or_else(|| ApiError::not_found("this experiment"))
}

/// The variant of the path.
pub(crate) fn variant_id(ctx: &Ctx) -> Result<i64, ApiError> {
    let id: Result<VariantId, _> = decoded(ctx, "variantId").parse();
    id.map(VariantId::get)
        .map_err(|_| ApiError::not_found("this variant"))
}

/// The unit of the path.
pub(crate) fn unit(ctx: &Ctx) -> Result<String, ApiError> {
    let unit = decoded(ctx, "unit");
    match text::check_unit_id(&unit) {
        Ok(()) => Ok(unit),
        Err(fault) => Err(ApiError::field("/unit", fault.code(), fault.to_string())),
    }
}

/// Carries a change out to its end, also when the client goes away meanwhile, and puts it in force on this replica.
pub(crate) async fn carry_out<R, T, F>(
    ctx: &Rc<Ctx>,
    granted: &Granted<R>,
    change: F,
) -> Result<T, ApiError>
where
    R: RequiredRole,
    T: 'static,
    F: AsyncFnOnce(&Database, &Origin) -> Result<T, ChangeError> + 'static,
{
    let (state, origin) = (ctx.state.clone(), origin(ctx, granted));
    let task = rt::spawn(async move {
        let outcome = change(&state.database, &origin).await?;
        if let Err(error) = state.serving.refresh().await {
            // Committed all the same: this replica hears of it again like all others.
            tracing::warn!(error = %error.chain(), "a change is not in force here yet");
        }
        Ok::<T, ChangeError>(outcome)
    });
    match task.await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(ApiError::internal(&error.to_string())),
    }
}

pub(crate) fn origin<R: RequiredRole>(ctx: &Ctx, granted: &Granted<R>) -> Origin {
    Origin {
        actor: granted.actor().to_owned(),
        request_id: ctx.request_id.as_str().to_owned(),
        address: ctx.client().map(|address| address.to_string()),
    }
}

/// What `If-Match` says, where a change may also come without it.
pub(crate) fn if_match(ctx: &Ctx) -> Precondition {
    stated(ctx).unwrap_or(Precondition::Any)
}

/// What `If-Match` says.
///
/// # Errors
/// 428 without the header.
pub(crate) fn required_if_match(ctx: &Ctx) -> Result<Precondition, ApiError> {
    stated(ctx).ok_or_else(|| {
        let detail =
            "send If-Match with the ETag of your last read, so that nobody's change is overwritten";
        ApiError::new(Code::PreconditionRequired, detail)
    })
}

fn stated(ctx: &Ctx) -> Option<Precondition> {
    let mut lines = ctx.req.headers().get_all(header::IF_MATCH).peekable();
    lines.peek()?;
    Some(precondition(
        lines.map(|line| line.to_str().unwrap_or_default()),
    ))
}

fn precondition<'a>(lines: impl Iterator<Item = &'a str>) -> Precondition {
    let mut versions = Vec::new();
    for line in lines {
        if line.trim() == "*" {
            return Precondition::Any;
        }
        versions.extend(strong_tags(line).filter_map(version));
    }
    Precondition::OneOf(versions)
}

/// The strong entity tags of a list. `If-Match` compares strongly, so weak ones match nothing.
fn strong_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        loop {
            let (before, behind) = rest.split_once('"')?;
            let (tag, behind) = behind.split_once('"')?;
            rest = behind;
            if !before.ends_with("W/") {
                return Some(tag);
            }
        }
    })
}

/// The version in a tag of ours; another spelling of the number is another tag.
fn version(tag: &str) -> Option<i64> {
    tag.parse()
        .ok()
        .filter(|version: &i64| version.to_string() == tag)
}

/// `{"success": true, "data": …}` with the version as `ETag`.
pub(crate) fn versioned<T: Serialize>(
    status: u16,
    data: T,
    version: i64,
) -> Result<HttpResponse, ApiError> {
    let mut response = admin_json(status, data)?;
    response
        .headers_mut()
        .insert(header::ETAG, header_value(&format!("\"{version}\""))?);
    Ok(response)
}

/// As [`versioned`], status 201, with the address of what was created.
pub(crate) fn created<T: Serialize>(
    data: T,
    version: i64,
    location: &str,
) -> Result<HttpResponse, ApiError> {
    let mut response = versioned(201, data, version)?;
    response
        .headers_mut()
        .insert(header::LOCATION, header_value(location)?);
    Ok(response)
}

fn header_value(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|error| ApiError::internal(&error.to_string()))
}

/// What a deletion answers.
pub(crate) fn deleted() -> Result<HttpResponse, ApiError> {
    admin_json(200, Deleted { deleted: true })
}

/// What a deletion answers.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// Always true.
    pub deleted: bool,
}

/// A successful answer, as the document shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Answer<T: ToSchema> {
    /// Always true.
    pub success: bool,
    /// What was asked for.
    pub data: T,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T: ToSchema> {
    /// Always true.
    pub success: bool,
    /// The entries of this page.
    pub data: Vec<T>,
    /// To be sent as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl<T: ToSchema + Serialize> Page<T> {
    /// A page of at most `limit` of the entries, of which one more than that was asked for.
    pub(crate) fn new<E>(
        mut entries: Vec<E>,
        limit: i64,
        cursor: impl Fn(&E) -> String,
        body: impl Fn(E) -> T,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next_cursor = entries.last().filter(|_| more).map(cursor);
        Self {
            success: true,
            data: entries.into_iter().map(body).collect(),
            next_cursor,
        }
    }

    pub(crate) fn answer(&self) -> Result<HttpResponse, ApiError> {
        let body = serde_json::to_vec(self).map_err(|e| ApiError::internal(&e.to_string()))?;
        Ok(HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "application/json"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(body))
    }
}

/// Reads query parameters, collecting faults.
pub(crate) struct Query<'c> {
    ctx: &'c Ctx,
    faults: Faults,
}

impl<'c> Query<'c> {
    pub(crate) const fn new(ctx: &'c Ctx) -> Self {
        Self {
            ctx,
            faults: Faults::new(),
        }
    }

    fn fault(&mut self, name: &str, code: &'static str, detail: &str) {
        self.faults.push(format!("/{name}"), code, detail);
    }

    /// A text of at most `max` characters; an empty one counts as none.
    pub(crate) fn text(&mut self, name: &str, max: usize) -> Option<String> {
        let value = self.ctx.query(name).filter(|value| !value.is_empty())?;
        match text::check_text(&value, 1, max) {
            Ok(()) => Some(value),
            Err(fault) => {
                self.fault(name, fault.code(), &fault.to_string());
                None
            }
        }
    }

    /// One of the words of `T`.
    pub(crate) fn word<T: std::str::FromStr<Err = UnknownWord>>(
        &mut self,
        name: &str,
    ) -> Option<T> {
        let value = self.text(name, 128)?;
        let parsed: Result<T, UnknownWord> = value.parse();
        if let Err(unknown) = &parsed {
            self.fault(name, code::UNKNOWN_VALUE, &unknown.to_string());
        }
        parsed.ok()
    }

    /// How many entries a page may have.
    pub(crate) fn limit(&mut self) -> i64 {
        let Some(value) = self.ctx.query("limit") else {
            return DEFAULT_LIMIT;
        };
        let limit = value.parse().ok();
        limit
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .unwrap_or_else(|| {
                let detail = format!("must be a whole number from 1 to {MAX_LIMIT}");
                self.fault("limit", code::OUT_OF_RANGE, &detail);
                DEFAULT_LIMIT
            })
    }

    /// The cursor of a list that is ordered by number.
    pub(crate) fn cursor(&mut self) -> Option<i64> {
        let value = self.text("cursor", 32)?;
        let cursor = value.parse().ok().filter(|cursor| *cursor > 0);
        if cursor.is_none() {
            self.fault("cursor", code::INVALID_TEXT, "is no cursor of this list");
        }
        cursor
    }

    /// The cursor of a list that is ordered by UUIDs.
    pub(crate) fn uuid(&mut self, name: &str) -> Option<uuid::Uuid> {
        let value = self.text(name, 36)?;
        let cursor = value.parse().ok();
        if cursor.is_none() {
            self.fault(name, code::INVALID_TEXT, "is no cursor of this list");
        }
        cursor
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 422 with every fault.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation(self.faults))
        }
    }
}

/// What every guarded route may answer instead.
pub struct Refused;

/// What a read of one thing may answer instead.
pub struct NotRead;

/// What a change may answer instead.
pub struct NotChanged;

/// What a change that must name a version may answer instead.
pub struct NotPatched;

const REFUSED: [(&str, &str); 6] = [
    ("401", "No valid token"),
    ("403", "The role may not do this"),
    ("405", "The path does not take this method"),
    ("414", "The URL is too long"),
    ("422", "Something in the request is wrong"),
    ("503", "The database is away; try again"),
];

const CHANGES: [(&str, &str); 7] = [
    ("400", "Malformed JSON"),
    ("404", "It does not exist"),
    ("408", "The body did not arrive in time"),
    ("409", "The present state does not allow it"),
    ("412", "`If-Match` names another version"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
];

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&REFUSED)
    }
}

impl IntoResponses for NotRead {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = Refused::responses();
        responses.extend(problems(&[("404", "It does not exist")]));
        responses
    }
}

impl IntoResponses for NotChanged {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = Refused::responses();
        responses.extend(problems(&CHANGES));
        responses
    }
}

impl IntoResponses for NotPatched {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = NotChanged::responses();
        responses.extend(problems(&[("428", "`If-Match` is missing")]));
        responses
    }
}

fn problems(rows: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    rows.iter()
        .map(|(status, description)| ((*status).to_owned(), problem(status, description)))
        .collect()
}

fn problem(status: &str, description: &str) -> RefOr<Response> {
    let body = Content::new(Some(Ref::from_schema_name("Problem")));
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", body);
    let header = match status {
        "401" => Some("WWW-Authenticate"),
        "405" => Some("Allow"),
        "503" => Some("Retry-After"),
        _ => None,
    };
    if let Some(name) = header {
        let text = ObjectBuilder::new().schema_type(Type::String);
        response = response.header(name, HeaderBuilder::new().schema(Some(text)).build());
    }
    response.build().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(lines: &[&str]) -> Precondition {
        precondition(lines.iter().copied())
    }

    #[test]
    fn if_match_takes_lists_and_compares_strongly() {
        let versions = |list: &[i64]| Precondition::OneOf(list.to_vec());
        for (lines, want) in [
            (&["*"][..], Precondition::Any),
            (&[" * "], Precondition::Any),
            (&[r#""7""#, "*"], Precondition::Any),
            (&[r#""7""#], versions(&[7])),
            (&[r#""7", "8""#, r#""9""#], versions(&[7, 8, 9])),
            (&[r#"W/"7", "8""#], versions(&[8])),
            (&[r#"W/"7""#], versions(&[])),
            (&[r#""a,b", "8""#], versions(&[8])),
            (&[r#""*""#], versions(&[])),
            (&["7"], versions(&[])),
            (&[r#""07""#], versions(&[])),
            (&[r#""+7""#], versions(&[])),
            (&[r#""7"#], versions(&[])),
            (&[""], versions(&[])),
        ] {
            assert_eq!(stated(lines), want, "{lines:?}");
        }
    }

    #[test]
    fn a_page_names_the_next_one_only_when_there_is_more() {
        let page =
            |entries: &[i64]| Page::new(entries.to_vec(), 2, ToString::to_string, |entry| entry);
        assert_eq!(page(&[9, 8, 7]).data, [9, 8]);
        assert_eq!(page(&[9, 8, 7]).next_cursor.as_deref(), Some("8"));
        assert_eq!(page(&[9, 8]).next_cursor, None);
        assert_eq!(page(&[]).next_cursor, None);
    }

    #[test]
    fn every_refusal_has_its_status() {
        let status = |error: ChangeError| ApiError::from(error).status();
        assert_eq!(status(ChangeError::NotFound("x")), 404);
        assert_eq!(status(ChangeError::Stale { current: 1 }), 412);
        assert_eq!(status(ChangeError::Invalid(Faults::new())), 422);
        let conflict = podium_storage::experiments::Conflict::NameTaken;
        assert_eq!(status(conflict.into()), 409);
    }
}
