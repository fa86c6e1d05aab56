//! One request: its id, its body under limits, its parameters.

use std::cell::RefCell;
use std::io::Read;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use actix_web::http::header::{self, AsHeaderName, HeaderMap, HeaderName, HeaderValue};
use actix_web::web::{Bytes, BytesMut, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt;
use serde::Serialize;

use crate::problem::{ApiError, Code};
use crate::state::AppState;

/// A body must be complete within this time; the HTTP server's own timer covers only the headers.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Body of one event, one assignment, one ranking.
pub const ONE: usize = 64 * 1024;
/// Body of a batch.
pub const BATCH: usize = 1024 * 1024;
/// Body of an admin request.
pub const ADMIN: usize = 256 * 1024;

/// Content types that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`, and `text/plain` as beacons send it.
    Beacon,
    /// `application/json` only.
    Json,
    /// Whatever the client says, or nothing.
    Any,
}

/// What stands in the query or in a header is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText;

/// A request in the hands of a handler.
pub struct Ctx {
    /// The request itself.
    pub req: HttpRequest,
    /// What the process holds.
    pub state: Data<AppState>,
    /// Id of the request, also in the answer.
    pub request_id: String,
    payload: RefCell<Option<Payload>>,
}

impl Ctx {
    /// Wraps what actix hands to a handler.
    #[must_use]
    pub fn new(req: HttpRequest, payload: Payload, state: Data<AppState>) -> Self {
        let request_id = request_id(req.headers());
        Self {
            req,
            state,
            request_id,
            payload: RefCell::new(Some(payload)),
        }
    }

    /// A path parameter; empty when the route has none of that name.
    #[must_use]
    pub fn path(&self, name: &str) -> &str {
        self.req.match_info().get(name).unwrap_or_default()
    }

    /// A path parameter that is a numeric id.
    ///
    /// # Errors
    /// 404: what is no id names nothing.
    pub fn id(&self, name: &str) -> Result<i64, ApiError> {
        self.path(name)
            .parse()
            .ok()
            .filter(|id| *id > 0)
            .ok_or_else(|| ApiError::not_found("this id"))
    }

    /// A query parameter, percent-decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        self.query_text(name)?.ok()
    }

    /// A query parameter, percent-decoded, where one that is no text must not be taken for a missing one.
    #[must_use]
    pub fn query_text(&self, name: &str) -> Option<Result<String, NotText>> {
        let query = self.req.query_string();
        if query.is_empty() {
            return None;
        }
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key)? == name).then(|| decode(value).ok_or(NotText))
        })
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.req
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    }

    /// A header in UTF-8, where one that is no text must not be taken for a missing one.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<Result<String, NotText>> {
        let value = self.req.headers().get(name)?;
        let text = std::str::from_utf8(value.as_bytes());
        Some(text.map(str::to_owned).map_err(|_| NotText))
    }

    /// Reads the body.
    ///
    /// # Errors
    /// 413 over `limit` (before reading when the length is declared, and after decompression), 415 for a content
    /// type or encoding that the route does not take, 408 when it is not complete in time.
    pub async fn body(&self, limit: usize, media: Media) -> Result<Bytes, ApiError> {
        self.check_media(media)?;
        let encoding = self.header(header::CONTENT_ENCODING).unwrap_or("identity");
        let gzip = encoding.eq_ignore_ascii_case("gzip");
        if !gzip && !encoding.eq_ignore_ascii_case("identity") {
            return Err(ApiError::new(
                Code::UnsupportedMediaType,
                "content encodings are identity and gzip",
            ));
        }
        let declared = self
            .header(header::CONTENT_LENGTH)
            .and_then(|length| length.parse::<usize>().ok());
        if declared.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let payload = self
            .payload
            .borrow_mut()
            .take()
            .ok_or_else(|| ApiError::internal("body read twice"))?;
        let body = read(payload, limit, declared.unwrap_or_default()).await?;
        if gzip { gunzip(&body, limit) } else { Ok(body) }
    }

    fn check_media(&self, media: Media) -> Result<(), ApiError> {
        let kind = self.header(header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let fits = match media {
            Media::Any => true,
            Media::Json => kind.eq_ignore_ascii_case("application/json"),
            Media::Beacon => {
                kind.eq_ignore_ascii_case("application/json")
                    || kind.eq_ignore_ascii_case("text/plain")
                    || kind.is_empty()
            }
        };
        if fits {
            return Ok(());
        }
        Err(ApiError::new(
            Code::UnsupportedMediaType,
            "the content type must be application/json",
        ))
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        Code::TooLarge,
        format!("the body may have at most {limit} bytes"),
    )
}

async fn read(mut payload: Payload, limit: usize, expected: usize) -> Result<Bytes, ApiError> {
    let mut collected = BytesMut::new();
    let mut first: Option<Bytes> = None;
    let mut reading = pin!(async {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk
                .map_err(|_| ApiError::new(Code::MalformedJson, "the body could not be read"))?;
            if collected.len() + first.as_ref().map_or(0, Bytes::len) + chunk.len() > limit {
                return Err(too_large(limit));
            }
            match first.take() {
                // Small bodies come in one piece, which is used as it is.
                None if collected.is_empty() => first = Some(chunk),
                None => collected.extend_from_slice(&chunk),
                Some(before) => {
                    collected.reserve(expected.min(limit));
                    collected.extend_from_slice(&before);
                    collected.extend_from_slice(&chunk);
                }
            }
        }
        Ok(first.take().unwrap_or_else(|| collected.split().freeze()))
    });
    // Most bodies are there already: only the others pay for a timer.
    if let Poll::Ready(done) =
        std::future::poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await
    {
        return done;
    }
    tokio::time::timeout(BODY_TIME, reading)
        .await
        .unwrap_or_else(|_| {
            Err(ApiError::new(
                Code::RequestTimeout,
                "the body did not arrive in time",
            ))
        })
}

fn gunzip(body: &[u8], limit: usize) -> Result<Bytes, ApiError> {
    let mut plain = Vec::new();
    let mut bounded = flate2::read::GzDecoder::new(body).take(limit as u64 + 1);
    bounded
        .read_to_end(&mut plain)
        .map_err(|_| ApiError::new(Code::MalformedJson, "the body is not valid gzip"))?;
    if plain.len() > limit {
        Err(too_large(limit))
    } else {
        Ok(plain.into())
    }
}

fn decode(text: &str) -> Option<String> {
    let plus = text.replace('+', " ");
    percent_encoding::percent_decode_str(&plus)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client's id when it is harmless to repeat, else one of ours.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic()))
        .map_or_else(fresh_id, str::to_owned)
}

fn fresh_id() -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let random = crate::ids::random().to_le_bytes();
    let mut id = String::with_capacity(32);
    for byte in random {
        id.push(char::from(HEX[usize::from(byte >> 4)]));
        id.push(char::from(HEX[usize::from(byte & 15)]));
    }
    id
}

/// Adds what every answer carries.
pub fn finish(response: &mut HttpResponse, request_id: &str) {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
}

/// JSON text as an answer with status 200.
#[must_use]
pub fn json_bytes(body: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ))
        .body(body)
}

/// The body of a successful admin answer.
#[derive(Debug, Serialize)]
pub struct Success<T: Serialize> {
    /// Always true.
    pub success: bool,
    /// What was asked for.
    pub data: T,
}

/// `{"success": true, "data": …}` with a status, never stored by caches.
///
/// # Errors
/// 500 when the data do not serialise, which is a bug.
pub fn admin_json<T: Serialize>(status: u16, data: T) -> Result<HttpResponse, ApiError> {
    let body = serde_json::to_vec(&Success {
        success: true,
        data,
    })
    .map_err(|e| ApiError::internal(&e.to_string()))?;
    let status = actix_web::http::StatusCode::from_u16(status)
        .map_err(|e| ApiError::internal(&e.to_string()))?;
    Ok(HttpResponse::build(status)
        .insert_header((
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ))
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .body(body))
}
