//! The OpenAPI 3.1 document, generated from the handlers.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_TYPE, LOCATION};
use actix_web::web::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_swagger_ui::Config;

use crate::problem::{ApiError, FieldError, Problem};
use crate::request::{Ctx, json_bytes};
use crate::routes;

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
    }
    document
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

/// A browsable page over the document that needs nothing from outside.
#[utoipa::path(get, path = "/docs/{file}", operation_id = "docs", tag = "Health",
    params(("file" = String, Path, description = "File of the page; empty for the page itself")),
    responses((status = 200, description = "The page or one of its files", content_type = "text/html", body = String),
        (status = 404, content_type = "application/problem+json", body = Problem)))]
pub async fn page(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    static CONFIG: LazyLock<Arc<Config<'static>>> =
        LazyLock::new(|| Arc::new(Config::from("/api/v1/openapi.json").try_it_out_enabled(true)));
    let file = utoipa_swagger_ui::serve(ctx.path("file"), CONFIG.clone());
    match file.map_err(|error| ApiError::internal(&error.to_string()))? {
        Some(file) => Ok(HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, file.content_type.as_str()))
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
