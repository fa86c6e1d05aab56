//! One line for a request, under the target `podium_api::access`.
//!
//! Our own faults are errors, changes by people are information, everything else is for who asks for it with
//! `RUST_LOG=info,podium_api::access=debug`: at the rate of a storefront a line a request would cost more than the answer, and
//! what is over a limit would let strangers decide how much is logged.
//! A line holds the route, never the path, which may name a unit, and nothing of what was sent.

use std::time::Duration;

use actix_web::http::Method;

use crate::metrics::Watch;
use crate::request::Ctx;

/// Writes the line of an answered request; `cause` is that of an internal error.
pub fn answered(ctx: &Ctx, watch: &Watch, status: u16, took: Duration, cause: Option<&str>) {
    macro_rules! line {
        ($level:ident, $message:literal $(, $cause:ident)?) => {
            tracing::$level!(
                target: "podium_api::access",
                {
                    request.id = ctx.request_id.as_str(),
                    trace.id = ctx.trace().id(),
                    http.method = ctx.req.method().as_str(),
                    http.route = watch.route(),
                    http.status = status,
                    duration_ms = took.as_secs_f64() * 1_000.0
                    $(, $cause)?
                },
                $message
            )
        };
    }
    if status == 500 {
        let cause = cause.unwrap_or("unknown");
        line!(error, "internal error", cause);
    } else if watch.is_guarded() && ctx.req.method() != Method::GET && status != 429 {
        line!(info, "a change was asked for");
    } else {
        line!(debug, "answered");
    }
}
