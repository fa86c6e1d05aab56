//! Results: what the totals say. For holders of a token.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use podium_domain::bandit::ArmType;
use podium_domain::experiment::ExperimentType;
use podium_domain::fault::{Faults, code};
use podium_domain::metric::Metric;
use podium_serving::snapshot::{ExperimentRef, Reason};
use podium_storage::analytics::dimensions::{self, Dimension};
use podium_storage::analytics::moments;
use podium_storage::analytics::series::{self, Bucket};
use podium_storage::analytics::{Days, context, performance as totals, units};
use podium_storage::arms;
use podium_storage::experiments;
use podium_storage::experiments::model::Experiment;
use podium_storage::rollouts;
use utoipa::OpenApi;

use self::assemble::Figures;
use self::bodies::{
    LeftOutBody, Lift, Money, PerformanceRow, PositionAnalysis, Report, TimeSeries, TopRow,
    UnitBody, UnitTotalsBody,
};
use self::detail::AnalysisBody;
use self::gathered::Read;
use crate::auth::{Granted, Viewer};
use crate::problem::{ApiError, Problem};
use crate::request::{Ctx, admin_json, success};
use crate::routes::Route;
use crate::routes::admin::common::{Answer, experiment as reference, unit as unit_of_path};
use crate::routes::promotion::bodies::WatchBody;

mod assemble;
mod bandit;
pub mod bodies;
mod compare;
mod cumulative;
pub mod detail;
pub mod export;
mod gathered;
mod latency;
mod notes;
pub mod plan;
mod sequential;
mod verdict;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::reading("/api/v1/admin/experiments/{id}/performance", performance),
        Route::reading("/api/v1/admin/experiments/{id}/lift", lift),
        Route::reading("/api/v1/admin/experiments/{id}/report", report),
        Route::reading(
            "/api/v1/admin/experiments/{id}/position-analysis",
            position_analysis,
        ),
        Route::reading("/api/v1/admin/experiments/{id}/time-series", time_series),
        Route::reading("/api/v1/admin/experiments/{id}/top-items", top_items),
        Route::reading("/api/v1/admin/experiments/{id}/top-brands", top_brands),
        Route::report(
            Method::GET,
            "/api/v1/admin/experiments/{id}/assignments/{unit}",
            assignment,
        ),
        Route::report(
            Method::GET,
            "/api/v1/admin/experiments/{id}/export/events.csv",
            export::events,
        ),
        Route::report(
            Method::GET,
            "/api/v1/admin/experiments/{id}/export/assignments.csv",
            export::assignments,
        ),
        Route::report(Method::POST, "/api/v1/admin/sample-size", plan::sample_size),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(
    performance,
    lift,
    report,
    position_analysis,
    time_series,
    top_items,
    top_brands,
    assignment,
    export::events,
    export::assignments,
    plan::sample_size
))]
pub struct AnalyticsApi;

/// Positions, items or brands that a list may have at most.
const MOST: i64 = 1_000;

async fn found(ctx: &Ctx) -> Result<Experiment, ApiError> {
    let experiment = experiments::query::read(&ctx.state.database, &reference(ctx)?).await?;
    experiment.ok_or_else(|| ApiError::not_found("this experiment"))
}

async fn read(ctx: &Ctx, experiment: i64) -> Result<Read, ApiError> {
    Read::now(
        &ctx.state.database,
        experiment,
        ctx.state.engine.environment(),
    )
    .await
}

/// Totals per variant, control first; variants without events are listed too.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/performance", operation_id = "performance", tag = "Analytics",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name"),
        ("startDate" = Option<String>, Query, description = "First UTC day (YYYY-MM-DD) or RFC 3339 time, whose day is meant"),
        ("endDate" = Option<String>, Query, description = "Last UTC day, included")),
    responses((status = 200, body = Answer<Vec<PerformanceRow>>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem), (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn performance(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<Bytes, ApiError> {
    let days = Days {
        from: day(&ctx, "startDate")?,
        to: day(&ctx, "endDate")?,
    };
    let experiment = found(&ctx).await?;
    let mut link = ctx.state.database.report().await?;
    let mut rows = assemble::performance(&totals::totals(&mut link, experiment.id, days).await?);
    drop(link);
    if experiment.experiment_type == ExperimentType::Bandit && days == Days::default() {
        let read = read(&ctx, experiment.id).await?;
        let arms = compute(move || read.bandit(&read.decided())).await?;
        for arm in arms.map(|body| body.arms).unwrap_or_default() {
            let row = rows.iter_mut().find(|row| row.variant_id == arm.variant_id);
            row.into_iter()
                .for_each(|row| row.bandit = Some(arm.clone()));
        }
    }
    success(rows)
}

/// Lift of each treatment against the control.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/lift", operation_id = "lift", tag = "Analytics", security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name"), ("metric" = Option<String>, Query, description = "Metric; the primary one without it")),
    responses((status = 200, body = Answer<Lift>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem), (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn lift(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<Bytes, ApiError> {
    let experiment = found(&ctx).await?;
    let known: Vec<Metric> = podium_domain::report::reported()
        .chain([Metric::P95LatencyMs])
        .collect();
    let metric = metric(&ctx, &experiment, &known)?;
    let read = read(&ctx, experiment.id).await?;
    let (report, bandit) = compute(move || {
        let decided = read.decided();
        let report = read.figures(&decided).detailed(metric);
        (report, read.bandit(&decided))
    })
    .await?;
    let note = "`lift` and `significance` are percents, everything else fractions; top-level figures are two-sided at 95 % with a fixed horizon, those in `anytime` hold at any moment, those in `sequential` count a look in every slot since the start";
    success(Lift {
        report,
        bandit,
        note,
    })
}

/// Everything that a decision needs.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/report", operation_id = "report", tag = "Analytics", security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = Answer<Report>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn report(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<Bytes, ApiError> {
    let experiment = found(&ctx).await?;
    let (mut link, id) = (ctx.state.database.report().await?, experiment.id);
    let variants = totals::totals(&mut link, id, Days::default()).await?;
    let left_out = context::counters(&mut link, id).await?;
    let promotion = rollouts::note_of_experiment(&mut link, id).await?;
    let positions = dimensions::positions(&mut link, id).await?;
    let items = dimensions::top(&mut link, id, Dimension::Item, 10).await?;
    let brands = dimensions::top(&mut link, id, Dimension::Brand, 10).await?;
    // Before the snapshot, which takes a connection of its own.
    drop(link);
    let read = read(&ctx, id).await?;
    let report = compute(move || {
        let decided = read.decided();
        let (figures, experiment) = (read.figures(&decided), &read.gathered.experiment);
        let (split, metrics) = (figures.split(), figures.metrics());
        let bandit = read.bandit(&decided);
        let verdict = verdict::verdict(&verdict::Facts {
            status: experiment.status,
            metrics: &metrics,
            split: &split,
            bandit: bandit.as_ref(),
            decision: &decided.decision,
            about: &|name| read.about(&decided, name),
            recorded: experiment.winner_variant_id,
            promoted: decided.evidence.history.active.is_some(),
            now: decided.evidence.now,
            pace: read.pace(&decided).unwrap_or(1.0),
        });
        let confidence = read.config().thresholds.min_confidence;
        let open = decided.evidence.analysis.as_ref();
        let freshness = &read.gathered.freshness;
        Report {
            experiment_id: id,
            experiment_name: experiment.name.clone(),
            status: experiment.status.name(),
            primary_metric: experiment.primary_metric.name(),
            start_date: experiment.start_date,
            end_date: experiment.end_date,
            lag_seconds: freshness.lag_seconds,
            read_at: freshness.now,
            folded_at: freshness.folded_at,
            analysis: open.map(|open| AnalysisBody::new(open, confidence)),
            performance: assemble::performance(&variants),
            client_assigned_share: figures.client_share(),
            notes: notes::notes(&decided, figures.client_units(), figures.units()),
            verdict,
            split,
            metrics,
            bandit,
            promotion: promotion.map(WatchBody::from),
            positions: figures.positions(&positions),
            top_items: figures.top(&items),
            top_brands: figures.top(&brands),
            left_out: LeftOutBody {
                bot_events: left_out.bot_events,
                bot_units: left_out.bot_units,
                uncounted_events: left_out.uncounted_events,
            },
        }
    })
    .await?;
    success(report)
}

/// Runs a computation of milliseconds where it delays no shopper: a worker thread answers page views.
async fn compute<T: Send + 'static>(
    computation: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    actix_web::web::block(computation)
        .await
        .map_err(|error| ApiError::internal(&error.to_string()))
}

/// Click rates by position, and whether they differ.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/position-analysis", operation_id = "positionAnalysis", tag = "Analytics",
    security(("bearer" = [])), params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = Answer<PositionAnalysis>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn position_analysis(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<Bytes, ApiError> {
    let experiment = found(&ctx).await?;
    let mut link = ctx.state.database.report().await?;
    let rows = dimensions::positions(&mut link, experiment.id).await?;
    let randomised = arms::randomised(&mut link, experiment.id, ArmType::Item).await?;
    let figures = Figures::without_sums(&experiment);
    let positions = figures.positions(&rows);
    let tests = figures.position_tests(&positions);
    let analysis = PositionAnalysis {
        positions,
        tests,
        examination: assemble::examined(&randomised),
    };
    success(analysis)
}

/// What happened by hour, day or week, and the metric and its lift from the start on with their intervals.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/time-series", operation_id = "timeSeries", tag = "Analytics",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name"), ("groupBy" = Option<String>, Query, description = "hour, day (default) or week"),
        ("metric" = Option<String>, Query, description = "Metric of the cumulative series; the primary one without it")),
    responses((status = 200, body = Answer<TimeSeries>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem), (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn time_series(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<Bytes, ApiError> {
    let bucket = bucket(&ctx)?;
    let experiment = found(&ctx).await?;
    // Latencies are not kept by day.
    let known: Vec<Metric> = podium_domain::report::reported().collect();
    let metric = metric(&ctx, &experiment, &known)?;
    let mut link = ctx.state.database.report().await?;
    let buckets = series::read(&mut link, experiment.id, bucket, Days::default()).await?;
    let days = moments::by_day(&mut link, experiment.id, Days::default()).await?;
    drop(link);
    let read = read(&ctx, experiment.id).await?;
    let (series, cumulative) = compute(move || {
        let (decided, gathered) = (read.decided(), &read.gathered);
        let series = Figures::without_sums(&gathered.experiment).series(&buckets);
        let cumulative = cumulative::Series {
            experiment: &gathered.experiment,
            epochs: &gathered.epochs,
            metric,
            from_epoch: decided.first_epoch(),
            now: gathered.freshness.now,
        };
        (series, cumulative.rows(days, gathered.rows.clone()))
    })
    .await?;
    success(TimeSeries {
        group_by: bucket.name(),
        series,
        metric: metric.name(),
        cumulative,
    })
}

/// Items with the most clicks, then purchases, then impressions.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/top-items", operation_id = "topItems", tag = "Analytics", security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name"), ("limit" = Option<i64>, Query, description = "1 to 1000, default 20", minimum = 1, maximum = 1000)),
    responses((status = 200, body = Answer<Vec<TopRow>>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem), (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn top_items(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<Bytes, ApiError> {
    top(&ctx, Dimension::Item).await
}

/// Brands with the most clicks, then purchases, then impressions.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/top-brands", operation_id = "topBrands", tag = "Analytics", security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name"), ("limit" = Option<i64>, Query, description = "1 to 1000, default 20", minimum = 1, maximum = 1000)),
    responses((status = 200, body = Answer<Vec<TopRow>>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem), (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn top_brands(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<Bytes, ApiError> {
    top(&ctx, Dimension::Brand).await
}

async fn top(ctx: &Ctx, dimension: Dimension) -> Result<Bytes, ApiError> {
    let limit = match ctx.query("limit") {
        None => 20,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MOST).contains(limit))
            .ok_or_else(|| {
                ApiError::field(
                    "/limit",
                    code::OUT_OF_RANGE,
                    format!("must be a whole number from 1 to {MOST}"),
                )
            })?,
    };
    let experiment = found(ctx).await?;
    let rows = dimensions::top(
        &mut ctx.state.database.report().await?,
        experiment.id,
        dimension,
        limit,
    )
    .await?;
    success(Figures::without_sums(&experiment).top(&rows))
}

/// What one unit has in an experiment, and why.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/assignments/{unit}", operation_id = "unitAssignment", tag = "Analytics",
    security(("bearer" = [])), params(("id" = String, Path, description = "Id or name"), ("unit" = String, Path, description = "User or session id")),
    responses((status = 200, body = Answer<UnitBody>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem), (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn assignment(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let unit = unit_of_path(&ctx)?;
    let experiment = found(&ctx).await?;
    let state = units::state(
        &mut ctx.state.database.report().await?,
        experiment.id,
        &unit,
    )
    .await?;
    let snapshot = ctx.state.serving.snapshot();
    let known = snapshot.find(ExperimentRef::Id(experiment.id));
    let placed = known.and_then(|known| {
        known
            .place(state.alias_of.as_deref().unwrap_or(&unit))
            .map(|variant| variant.id)
    });
    let stored = state.assignment;
    let told = known.filter(|known| known.is_served()).and_then(|known| {
        let pinned = known.pinned(&unit).map(|pinned| (pinned, Reason::Override));
        pinned.or_else(|| known.explain(&unit, stored.as_ref().map(|stored| stored.variant_id)))
    });
    let variant_id = told.map(|(variant, _)| variant.id);
    let reason = told.map_or("DEFAULT", |(_, reason)| reason.name());
    admin_json(
        200,
        UnitBody {
            unit,
            alias_of: state.alias_of,
            aliases: state.aliases,
            variant_id,
            variant_name: variant_id
                .and_then(|id| experiment.variant(id))
                .map(|variant| variant.name.clone()),
            reason,
            stored_variant_id: stored.as_ref().map(|stored| stored.variant_id),
            hashed_variant_id: placed,
            assigned_at: stored.as_ref().map(|stored| stored.assigned_at),
            epoch: stored.as_ref().map(|stored| stored.epoch),
            propensity: stored.as_ref().and_then(|stored| stored.propensity),
            source: stored
                .as_ref()
                .map(|stored| if stored.by_client { "client" } else { "server" }),
            is_bot: stored.as_ref().is_some_and(|stored| stored.is_bot),
            excluded: state.exclusion.map(|exclusion| exclusion.reason),
            totals: state.totals.map(|totals| UnitTotalsBody {
                impressions: totals.impressions,
                clicks: totals.clicks,
                add_to_carts: totals.add_to_carts,
                purchases: totals.purchases,
                purchase_value: Money::new(&totals.purchase_value),
                engagement: Money::new(&totals.engagement),
                requests: totals.requests,
                errors: totals.errors,
                sessions: totals.sessions,
            }),
        },
    )
}

/// The metric of the request, one of `known`; the primary one without a name.
fn metric(ctx: &Ctx, experiment: &Experiment, known: &[Metric]) -> Result<Metric, ApiError> {
    let Some(name) = ctx.query("metric") else {
        return Ok(experiment.primary_metric);
    };
    let found = name.parse::<Metric>().ok();
    found
        .filter(|metric| known.contains(metric))
        .ok_or_else(|| {
            let names: Vec<&str> = known.iter().copied().map(Metric::name).collect();
            ApiError::field(
                "/metric",
                code::UNKNOWN_METRIC,
                format!("must be one of {}", names.join(", ")),
            )
        })
}

fn bucket(ctx: &Ctx) -> Result<Bucket, ApiError> {
    match ctx.query("groupBy").as_deref() {
        None | Some("day") => Ok(Bucket::Day),
        Some("hour") => Ok(Bucket::Hour),
        Some("week") => Ok(Bucket::Week),
        Some(_) => Err(ApiError::field(
            "/groupBy",
            code::UNKNOWN_VALUE,
            "must be hour, day or week",
        )),
    }
}

fn day(ctx: &Ctx, name: &str) -> Result<Option<NaiveDate>, ApiError> {
    let Some(text) = ctx.query(name) else {
        return Ok(None);
    };
    let day = text.parse::<NaiveDate>().ok().or_else(|| {
        DateTime::parse_from_rfc3339(&text)
            .ok()
            .map(|time| time.with_timezone(&Utc).date_naive())
    });
    // PostgreSQL ends earlier than the calendar of the parser.
    let day = day.filter(|day| (1..=9999).contains(&chrono::Datelike::year(day)));
    day.map(Some).ok_or_else(|| {
        let mut faults = Faults::new();
        faults.push(
            format!("/{name}"),
            code::WRONG_TYPE,
            "must be a day (YYYY-MM-DD) or an RFC 3339 time",
        );
        ApiError::validation(faults)
    })
}
