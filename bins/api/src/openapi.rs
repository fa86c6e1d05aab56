//! The OpenAPI 3.1 document, generated from the handlers.

use std::rc::Rc;
use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

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
    if let Some(components) = document.components.as_mut() {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
    document
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
#[must_use]
pub fn page() -> utoipa_swagger_ui::SwaggerUi {
    utoipa_swagger_ui::SwaggerUi::new("/docs/{_:.*}")
        .config(utoipa_swagger_ui::Config::from("/api/v1/openapi.json").try_it_out_enabled(true))
}
