//! The OpenAPI 3.1 document, generated from the handlers.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use actix_web::web::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa_swagger_ui::Config;

use crate::problem::{ApiError, FieldError, Problem};
use crate::request::{Ctx, json_bytes};
use crate::routes::{self, Access, Route};

/// Parts that all operations share.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Podium",
        description = "Experimentation for storefronts: assign, track, learn, promote.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    components(schemas(Problem<'static>, FieldError))
)]
struct Shared;

/// The whole document.
#[must_use]
pub fn build() -> utoipa::openapi::OpenApi {
    let mut document = Shared::openapi();
    for part in routes::documents() {
        document.merge(part);
    }
    for route in routes::table() {
        if let Some(operation) = operation(&mut document, &route) {
            add_doors(operation, &route);
        }
    }
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        for operation in operations.into_iter().flatten() {
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    meaning(status).clone_into(&mut response.description);
                }
            }
        }
    }
    if let Some(components) = document.components.as_mut() {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let key = ApiKey::Header(ApiKeyValue::with_description(
            "X-API-Key",
            "An API key; it may also stand in `Authorization` as a bearer token",
        ));
        components.add_security_scheme("apiKey", SecurityScheme::ApiKey(key));
    }
    document
}

/// The operation of a row of the table, whose pattern may say what a parameter looks like.
fn operation<'d>(
    document: &'d mut utoipa::openapi::OpenApi,
    route: &Route,
) -> Option<&'d mut Operation> {
    let plain: String = route
        .path
        .split('}')
        .map(|part| part.split(':').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("}");
    let item = document.paths.paths.get_mut(&plain)?;
    match route.method.as_str() {
        "GET" => item.get.as_mut(),
        "PUT" => item.put.as_mut(),
        "POST" => item.post.as_mut(),
        "DELETE" => item.delete.as_mut(),
        "PATCH" => item.patch.as_mut(),
        _ => None,
    }
}

/// What stands before a handler may answer instead of it.
fn add_doors(operation: &mut Operation, route: &Route) {
    let key = SecurityRequirement::new::<_, [&str; 0], &str>("apiKey", []);
    let mut statuses = vec!["429"];
    if route.is_storefront() {
        operation.security = Some(vec![SecurityRequirement::default(), key]);
        statuses.extend(["401", "403"]);
    } else if route.access == Access::Public {
        return;
    } else {
        operation.security.get_or_insert_default().push(key);
    }
    for status in statuses {
        let known = &mut operation.responses.responses;
        known
            .entry(status.to_owned())
            .or_insert_with(|| problem(status));
    }
}

fn problem(status: &str) -> RefOr<Response> {
    let body = Content::new(Some(Ref::from_schema_name("Problem")));
    let mut response = ResponseBuilder::new().content("application/problem+json", body);
    if status == "429" {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer);
        let header = HeaderBuilder::new().schema(Some(seconds)).build();
        response = response.header("Retry-After", header);
    }
    response.build().into()
}

/// What a status means where the operation says nothing more of it.
fn meaning(status: &str) -> &'static str {
    match status {
        "200" => "What was asked for",
        "201" => "Created",
        "400" => "Not one JSON document",
        "401" => "No or bad token",
        "403" => "The role is too low",
        "404" => "It does not exist",
        "409" => "The state does not allow it",
        "412" => "`If-Match` names an older version",
        "413" => "The body is too large",
        "415" => "The content type or encoding is not taken",
        "422" => "Fields are missing or wrong; all of them are named",
        "428" => "`If-Match` is missing",
        "429" => "Too many requests; `Retry-After` says when to try again",
        "503" => "The database is away or a queue is full; `Retry-After` says when to try again",
        _ => "See the code of the answer",
    }
}

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    // Serialising a document of plain structs cannot fail; an empty answer would fail every test of it.
    build().to_json().unwrap_or_default().into()
});

/// The document as JSON.
#[utoipa::path(get, path = "/api/v1/openapi.json", operation_id = "openapi", tag = "Health",
    responses((status = 200, description = "This document", content_type = "application/json", body = serde_json::Value)))]
pub async fn document(_: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    Ok(json_bytes(DOCUMENT.clone()))
}

/// The page runs its own scripts and calls this server; its library writes styles into the page.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

/// A browsable page over the document that needs nothing from outside.
#[utoipa::path(get, path = "/docs/{file}", operation_id = "docs", tag = "Health",
    params(("file" = String, Path, description = "File of the page; empty for the page itself")),
    responses((status = 200, description = "The page or one of its files", content_type = "text/html", body = String),
        (status = 404, content_type = "application/problem+json", body = Problem)))]
pub async fn page(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        // Messages link to operations of this page.
        let config = Config::from("/api/v1/openapi.json").deep_linking(true);
        Arc::new(config.try_it_out_enabled(true))
    });
    let file = utoipa_swagger_ui::serve(ctx.path("file"), CONFIG.clone());
    match file.map_err(|error| ApiError::internal(&error.to_string()))? {
        Some(file) => Ok(HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, file.content_type.as_str()))
            .insert_header((CONTENT_SECURITY_POLICY, PAGE_POLICY))
            .body(file.bytes.into_owned())),
        None => Err(ApiError::not_found("this file")),
    }
}

/// The address that people type.
#[utoipa::path(get, path = "/docs", operation_id = "docsRedirect", tag = "Health",
    responses((status = 308, description = "To `/docs/`")))]
pub async fn page_redirect(_: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::PermanentRedirect()
        .insert_header((LOCATION, "/docs/"))
        .finish())
}
