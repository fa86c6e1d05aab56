//! One request: its id, its body under limits, its parameters.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Ready, ready};
use std::io::Read;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, AsHeaderName, HeaderMap, HeaderName, HeaderValue};
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use futures_util::Stream;
use serde::Serialize;
use tokio::time::Instant;

use crate::auth::Presented;
use crate::problem::{ApiError, Code};
use crate::state::SharedState;
use crate::trace::{TRACEPARENT, Trace};

mod pieces;

pub use pieces::Pieces;

/// A body must be complete within this time; the HTTP server's own timer covers only the headers.
const BODY_TIME: Duration = Duration::from_secs(10);
/// The same for an upload, of which something must arrive every [`BODY_TIME`].
const UPLOAD_TIME: Duration = Duration::from_secs(120);

/// Body of one event, one assignment, one ranking.
pub const ONE: usize = 64 * 1024;
/// Body of a batch.
pub const BATCH: usize = 1024 * 1024;
/// Body of an admin request.
pub const ADMIN: usize = 256 * 1024;
/// Body of an upload.
pub const UPLOAD: usize = 32 * 1024 * 1024;

/// Content types that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`, and `text/plain` as beacons send it.
    Beacon,
    /// `application/json` only.
    Json,
    /// `application/json`, and `text/csv`.
    Table,
    /// Whatever the client says, or nothing.
    Any,
}

/// What stands in the query or in a header is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText;

/// A request as actix hands it over.
pub struct Parts {
    req: HttpRequest,
    payload: Payload,
}

impl FromRequest for Parts {
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(Ok(Self {
            req: req.clone(),
            payload: payload.take(),
        }))
    }
}

/// A request in the hands of a handler.
pub struct Ctx {
    /// The request itself.
    pub req: HttpRequest,
    /// What the process holds.
    pub state: SharedState,
    /// Id of the request, also in the answer.
    pub request_id: RequestId,
    trace: OnceCell<Trace>,
    payload: RefCell<Option<Payload>>,
    /// Time that went by while the body came, which is the client's and not the handler's.
    receiving: Cell<Duration>,
    receiving_now: Cell<bool>,
}

impl Ctx {
    /// Wraps what actix hands to a handler.
    #[must_use]
    pub fn new(parts: Parts, state: SharedState) -> Self {
        let request_id = RequestId::of(parts.req.headers());
        Self {
            req: parts.req,
            state,
            request_id,
            trace: OnceCell::new(),
            payload: RefCell::new(Some(parts.payload)),
            receiving: Cell::new(Duration::ZERO),
            receiving_now: Cell::new(false),
        }
    }

    /// The trace that the request belongs to: its caller's, else its own.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        self.trace.get_or_init(|| {
            Trace::given(self.req.headers())
                .unwrap_or_else(|| Trace::begun(self.request_id.as_str()))
        })
    }

    /// Address of the client, behind the proxies that are trusted.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.state.config.proxies.client(&self.req)
    }

    /// What the request brings along to be let in.
    #[must_use]
    pub fn presented(&self) -> Presented<'_> {
        let lines = |name: HeaderName| {
            let lines = self.req.headers().get_all(name);
            lines
                .map(|line| line.to_str().unwrap_or_default())
                .collect()
        };
        Presented {
            authorization: lines(header::AUTHORIZATION),
            api_key: lines(API_KEY),
        }
    }

    /// Method and pattern of the path, such as `POST /api/v1/admin/users`.
    #[must_use]
    pub fn route(&self) -> String {
        let pattern = self.req.match_pattern();
        let pattern = pattern.as_deref().unwrap_or("unknown path");
        format!("{} {pattern}", self.req.method())
    }

    /// Whether the body is on its way at this moment.
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        self.receiving_now.get()
    }

    /// How long the client took for the body.
    #[must_use]
    pub fn receiving(&self) -> Duration {
        self.receiving.get()
    }

    /// Puts a body that was read back in its place, for whoever reads it next.
    pub fn put_back(&self, body: Bytes) {
        let whole = futures_util::stream::once(std::future::ready(Ok(body)));
        *self.payload.borrow_mut() = Some(Payload::Stream {
            payload: Box::pin(whole),
        });
    }

    /// The body as it was sent, without a look at its type or encoding.
    ///
    /// # Errors
    /// 413 over `limit`, 408 when it is not complete in time.
    pub async fn raw_body(&self, limit: usize) -> Result<Bytes, ApiError> {
        let payload = self.take_payload(limit)?;
        self.read(payload, limit).await
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

    /// A header's bytes, unexamined.
    #[must_use]
    pub fn header_bytes(&self, name: impl AsHeaderName) -> Option<&[u8]> {
        self.req.headers().get(name).map(HeaderValue::as_bytes)
    }

    /// A header in UTF-8, where one that is no text must not be taken for a missing one.
    #[must_use]
    pub fn header_text(&self, name: impl AsHeaderName) -> Option<Result<String, NotText>> {
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
        let (payload, gzip) = self.open(limit, media)?;
        let body = self.read(payload, limit).await?;
        if gzip { gunzip(&body, limit) } else { Ok(body) }
    }

    async fn read(&self, payload: Payload, limit: usize) -> Result<Bytes, ApiError> {
        let mut reading = Reading {
            payload,
            limit,
            first: Bytes::new(),
            collected: BytesMut::new(),
        };
        // actix asks a handler for the first time before it takes what came with the head off the connection: the first
        // look finds nothing, and the second, which follows at once, all of most bodies. Only the others pay for a timer,
        // and for a place of their own.
        let mut looked = false;
        let at_once = std::future::poll_fn(|cx| match reading.poll(cx) {
            Poll::Pending if !looked => {
                looked = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            second => Poll::Ready(second),
        });
        match at_once.await {
            Poll::Ready(done) => done,
            Poll::Pending => {
                let begin = Instant::now();
                self.receiving_now.set(true);
                let body = Box::pin(read_in_time(reading)).await;
                self.receiving_now.set(false);
                self.receiving.set(self.receiving.get() + begin.elapsed());
                body
            }
        }
    }

    /// As [`Self::body`], piece by piece, for bodies that are too large to be held, and with the time of an upload.
    ///
    /// # Errors
    /// 413 for a declared length over `limit`, 415.
    pub fn pieces(&self, limit: usize, media: Media) -> Result<Pieces, ApiError> {
        let (payload, gzip) = self.open(limit, media)?;
        Ok(Pieces::new(
            payload,
            gzip,
            limit,
            Instant::now() + UPLOAD_TIME,
        ))
    }

    /// The body as it arrives, and whether it is compressed.
    fn open(&self, limit: usize, media: Media) -> Result<(Payload, bool), ApiError> {
        self.check_media(media)?;
        let encoding = self.header_bytes(header::CONTENT_ENCODING);
        let encoding = encoding.unwrap_or(b"identity");
        let gzip = encoding.eq_ignore_ascii_case(b"gzip");
        if !gzip && !encoding.eq_ignore_ascii_case(b"identity") {
            return Err(ApiError::new(
                Code::UnsupportedMediaType,
                "content encodings are identity and gzip",
            ));
        }
        Ok((self.take_payload(limit)?, gzip))
    }

    fn take_payload(&self, limit: usize) -> Result<Payload, ApiError> {
        let declared = self
            .header(header::CONTENT_LENGTH)
            .and_then(|length| length.parse::<usize>().ok());
        if declared.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let payload = self.payload.borrow_mut().take();
        payload.ok_or_else(|| ApiError::internal("body read twice"))
    }

    /// The content type, without its parameters.
    fn media_type(&self) -> &[u8] {
        let kind = self.header_bytes(header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii()
    }

    /// Whether the body calls itself `text/csv`.
    #[must_use]
    pub fn is_csv(&self) -> bool {
        self.media_type().eq_ignore_ascii_case(b"text/csv")
    }

    fn check_media(&self, media: Media) -> Result<(), ApiError> {
        let kind = self.media_type();
        let is_json = kind.eq_ignore_ascii_case(b"application/json");
        let (fits, wanted) = match media {
            Media::Any => (true, ""),
            Media::Json => (is_json, "application/json"),
            Media::Table => (is_json || self.is_csv(), "application/json or text/csv"),
            Media::Beacon => (
                is_json || kind.eq_ignore_ascii_case(b"text/plain") || kind.is_empty(),
                "application/json",
            ),
        };
        if fits {
            return Ok(());
        }
        Err(ApiError::new(
            Code::UnsupportedMediaType,
            format!("the content type must be {wanted}"),
        ))
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        Code::TooLarge,
        format!("the body may have at most {limit} bytes"),
    )
}

async fn read_in_time(mut reading: Reading) -> Result<Bytes, ApiError> {
    let complete = std::future::poll_fn(|cx| reading.poll(cx));
    tokio::time::timeout(BODY_TIME, complete)
        .await
        .unwrap_or_else(|_| Err(too_slow()))
}

fn too_slow() -> ApiError {
    ApiError::new(Code::RequestTimeout, "the body did not arrive in time")
}

fn unreadable() -> ApiError {
    ApiError::new(Code::MalformedJson, "the body could not be read")
}

fn no_gzip() -> ApiError {
    ApiError::new(Code::MalformedJson, "the body is not valid gzip")
}

/// A body in the course of arriving. One that comes in one piece is used as it is.
struct Reading {
    payload: Payload,
    limit: usize,
    first: Bytes,
    collected: BytesMut,
}

impl Reading {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ApiError>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.payload).poll_next(cx)) {
                Some(chunk) => self.add(chunk)?,
                None if self.collected.is_empty() => {
                    return Poll::Ready(Ok(std::mem::take(&mut self.first)));
                }
                None => return Poll::Ready(Ok(self.collected.split().freeze())),
            }
        }
    }

    fn add(&mut self, chunk: Result<Bytes, PayloadError>) -> Result<(), ApiError> {
        let chunk = chunk.map_err(|_| unreadable())?;
        // What came first is moved over when more comes, so at most one of the two holds something.
        if self.first.len() + self.collected.len() + chunk.len() > self.limit {
            return Err(too_large(self.limit));
        }
        if self.first.is_empty() && self.collected.is_empty() {
            self.first = chunk;
        } else {
            self.collected
                .extend_from_slice(&std::mem::take(&mut self.first));
            self.collected.extend_from_slice(&chunk);
        }
        Ok(())
    }
}

fn gunzip(body: &[u8], limit: usize) -> Result<Bytes, ApiError> {
    let mut plain = Vec::new();
    let mut bounded = flate2::read::GzDecoder::new(body).take(limit as u64 + 1);
    bounded.read_to_end(&mut plain).map_err(|_| no_gzip())?;
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

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Id of a request: the client's when it is harmless to repeat, else one of ours.
pub enum RequestId {
    /// As the client sent it.
    Given(HeaderValue),
    /// 128 random bits in hexadecimal.
    Fresh([u8; 32]),
}

impl RequestId {
    const LONGEST: usize = 128;

    fn of(headers: &HeaderMap) -> Self {
        match headers.get(REQUEST_ID) {
            Some(id) if Self::is_harmless(id.as_bytes()) => Self::Given(id.clone()),
            _ => Self::fresh(),
        }
    }

    fn is_harmless(id: &[u8]) -> bool {
        !id.is_empty() && id.len() <= Self::LONGEST && id.iter().all(u8::is_ascii_graphic)
    }

    fn fresh() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut id = [0; 32];
        for (pair, byte) in id
            .chunks_exact_mut(2)
            .zip(crate::ids::random().to_le_bytes())
        {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        Self::Fresh(id)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = match self {
            Self::Given(id) => id.as_bytes(),
            Self::Fresh(id) => id,
        };
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Given(id) => Some(id.clone()),
            Self::Fresh(id) => HeaderValue::from_bytes(id).ok(),
        }
    }
}

/// Adds what every answer carries.
pub fn finish(response: &mut HttpResponse, ctx: &Ctx) {
    let headers = response.headers_mut();
    if let Some(value) = ctx.request_id.header() {
        headers.insert(REQUEST_ID, value);
    }
    if ctx.req.headers().contains_key(TRACEPARENT)
        && let Some(value) = ctx.trace().header()
    {
        headers.insert(TRACEPARENT, value);
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
/// As [`success`].
pub fn admin_json<T: Serialize>(status: u16, data: T) -> Result<HttpResponse, ApiError> {
    let status = StatusCode::from_u16(status).map_err(|e| ApiError::internal(&e.to_string()))?;
    Ok(never_stored(status, success(data)?))
}

/// `{"success": true, "data": …}`
///
/// # Errors
/// 500 when the data do not serialise, which is a bug.
pub fn success<T: Serialize>(data: T) -> Result<Bytes, ApiError> {
    let success = true;
    let body = serde_json::to_vec(&Success { success, data });
    let body = body.map_err(|e| ApiError::internal(&e.to_string()))?;
    Ok(body.into())
}

/// JSON text as an answer that caches never store.
#[must_use]
pub fn never_stored(status: StatusCode, body: Bytes) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ))
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .body(body)
}
