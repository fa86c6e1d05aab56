//! `Idempotency-Key` on POSTs of the admin API: the same request again gets the answer of the first one.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use actix_web::body::to_bytes;
use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, HttpResponseBuilder, rt};
use bytes::Bytes;
use podium_storage::Database;
use podium_storage::idempotency::{self, Claim, Claimed, StoredAnswer};
use sha2::{Digest, Sha256};

use crate::problem::{ApiError, Code};
use crate::request::{ADMIN, Ctx};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key, in characters.
const LONGEST: usize = 255;
/// Headers that belong to an answer; the others are made anew.
const KEPT_HEADERS: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LOCATION,
];

/// What is kept instead of a body that holds a secret.
pub struct WithoutSecret(pub Bytes);

/// Carries a request out once for its key. Without a key, or for another method than POST, it is carried out as it is.
///
/// # Errors
/// What the handler refuses; 422 for a bad key or one of another request, 409 while the first request runs.
pub async fn once(
    ctx: &Rc<Ctx>,
    actor: &str,
    handler: impl Future<Output = Result<HttpResponse, ApiError>> + 'static,
) -> Result<HttpResponse, ApiError> {
    let Some(key) = key_of(ctx)? else {
        return handler.await;
    };
    let body = ctx.raw_body(ADMIN).await?;
    let claim = Claim {
        actor: actor.to_owned(),
        key,
        route: format!("{} {}", ctx.req.method(), ctx.req.path()),
        request: digest(ctx, &body),
        request_id: ctx.request_id.as_str().to_owned(),
    };
    ctx.put_back(body);
    let database = &ctx.state.database;
    match idempotency::claim(database, &claim).await? {
        Claimed::First => {
            // To its end, also when the client goes away meanwhile: it will come back and ask what became of it.
            let ctx = ctx.clone();
            let task = rt::spawn(async move {
                let outcome = alive(&ctx.state.database, &claim, handler).await;
                keep(&ctx, claim, outcome).await
            });
            task.await
                .map_err(|error| ApiError::internal(&error.to_string()))?
        }
        Claimed::Answered(answer) => replay(ctx, answer),
        Claimed::Running => Err(ApiError::conflict(
            "the first request with this Idempotency-Key still runs, or was cut off; try again in a minute",
        )),
        Claimed::Lost => Err(ApiError::conflict(
            "the first request with this Idempotency-Key made its change and its answer was lost; look what it did and use \
             another key",
        )),
        Claimed::Mismatch => Err(ApiError::new(
            Code::IdempotencyMismatch,
            "this Idempotency-Key belongs to another request",
        )),
    }
}

/// How often a claim is renewed while its request runs.
const RENEW_EVERY: Duration = Duration::from_secs(15);

/// Waits for the handler, and says meanwhile that its request lives.
async fn alive<T>(database: &Database, claim: &Claim, handler: impl Future<Output = T>) -> T {
    let mut handler = pin!(handler);
    loop {
        if let Ok(outcome) = tokio::time::timeout(RENEW_EVERY, handler.as_mut()).await {
            return outcome;
        }
        if let Err(error) = idempotency::renew(database, claim).await {
            tracing::debug!(error = %error.chain(), "an idempotency key was not renewed and will be");
        }
    }
}

fn key_of(ctx: &Ctx) -> Result<Option<String>, ApiError> {
    if ctx.req.method() != Method::POST {
        return Ok(None);
    }
    let mut lines = ctx.req.headers().get_all(KEY);
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    let bytes = line.as_bytes();
    let fits = (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    match (fits, lines.next(), line.to_str()) {
        (true, None, Ok(key)) => Ok(Some(key.to_owned())),
        _ => Err(ApiError::field(
            "/Idempotency-Key",
            "invalid_text",
            format!("must be one header of 1 to {LONGEST} visible ASCII characters"),
        )),
    }
}

fn digest(ctx: &Ctx, body: &[u8]) -> [u8; 32] {
    let uri = ctx.req.uri().to_string();
    let mut digest = Sha256::new();
    for part in [ctx.req.method().as_str().as_bytes(), uri.as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Whether a status says that nothing was decided: our fault, or a request that was refused for its form or its pace.
const fn is_undecided(status: u16) -> bool {
    status >= 500 || matches!(status, 400 | 408 | 413 | 415 | 422 | 429)
}

/// Keeps what the handler decided; gives the key up where it decided nothing. Such an error stays one, because what the log
/// tells of it is not in its answer.
async fn keep(
    ctx: &Ctx,
    claim: Claim,
    outcome: Result<HttpResponse, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let mut response = match outcome {
        Ok(response) => response,
        Err(error) if is_undecided(error.status()) => {
            settle(&ctx.state.database, &claim, None).await;
            return Err(error);
        }
        Err(error) => error.response(ctx.req.path(), ctx.request_id.as_str()),
    };
    let status = response.status().as_u16();
    let redacted = response.extensions_mut().remove::<WithoutSecret>();
    let headers = KEPT_HEADERS
        .iter()
        .filter_map(|name| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        })
        .collect();
    let (head, body) = response.into_parts();
    let body = to_bytes(body)
        .await
        .map_err(|error| ApiError::internal(&error.to_string()))?;
    let stored = (!is_undecided(status)).then(|| StoredAnswer {
        status,
        headers,
        body: redacted.map_or_else(|| body.to_vec(), |redacted| redacted.0.to_vec()),
    });
    settle(&ctx.state.database, &claim, stored.as_ref()).await;
    Ok(head.set_body(actix_web::body::BoxBody::new(body)))
}

async fn settle(database: &Database, claim: &Claim, answer: Option<&StoredAnswer>) {
    let settled = match answer {
        Some(answer) => idempotency::answer(database, claim, answer).await,
        None => idempotency::release(database, claim).await,
    };
    if let Err(error) = settled {
        tracing::warn!(error = %error.chain(), "an idempotency key stays without an answer");
    }
}

fn replay(ctx: &Ctx, answer: StoredAnswer) -> Result<HttpResponse, ApiError> {
    let status = StatusCode::from_u16(answer.status)
        .map_err(|error| ApiError::internal(&error.to_string()))?;
    let mut response = HttpResponseBuilder::new(status);
    for (name, value) in &answer.headers {
        response.insert_header((name.as_str(), value.as_str()));
    }
    response.insert_header((REPLAYED, "true"));
    let body = if status.is_success() {
        answer.body
    } else {
        with_request_id(answer.body, ctx.request_id.as_str())
    };
    Ok(response.body(body))
}

/// A problem document names the request that it answers: this one, not the first.
fn with_request_id(body: Vec<u8>, id: &str) -> Vec<u8> {
    let Ok(mut problem) = serde_json::from_slice::<serde_json::Map<_, _>>(&body) else {
        return body;
    };
    problem.insert("requestId".into(), id.into());
    serde_json::to_vec(&problem).unwrap_or(body)
}
