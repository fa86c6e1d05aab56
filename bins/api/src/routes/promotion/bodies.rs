//! Answers about promotions. Percents are percents, `successRate` is the primary metric's value.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use chrono::{DateTime, Utc};
use podium_promotion::config::{Effective, Preset, PromotionConfig};
use podium_promotion::engine::{Checked, Item, Promoted, Scan};
use podium_promotion::evidence::Arm;
use podium_promotion::safety::SafetyCheck;
use podium_storage::promotions::model::Promotion;
use podium_storage::rollouts::WatchNote;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::problem::ApiError;

/// A request to the promotion route.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "documents the body")]
pub struct AutoPromote {
    /// `check`, `promote`, `scan` or `rollback`.
    action: String,
    /// For check and promote.
    experiment_name: Option<String>,
    /// Chooses a treatment; without it the best one.
    variant_name: Option<String>,
    /// For rollback.
    promotion_id: Option<String>,
    /// For rollback and force: 1 to 1,000 characters.
    #[schema(min_length = 1, max_length = 1000)]
    reason: Option<String>,
    /// Promotes what is not eligible; role admin, with a reason.
    force: Option<bool>,
    /// Settings on top of all others.
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
    /// `aggressive`, `balanced` or `conservative`.
    preset: Option<String>,
    /// Answers as if, and writes nothing.
    dry_run: Option<bool>,
}

/// The answer of the promotion route.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AutoPromoteAnswer)]
pub struct Outcome {
    /// Always true.
    pub success: bool,
    /// What was asked for.
    pub action: String,
    /// What came of it; its members depend on the action.
    #[schema(value_type = Object)]
    pub data: Value,
    /// What was in force.
    pub config: InForce,
    /// When.
    pub timestamp: DateTime<Utc>,
}

/// The configuration in short.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InForce {
    /// Whether the engine promotes on its own.
    pub enabled: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// The preset.
    pub preset: &'static str,
}

impl InForce {
    pub(super) fn of(effective: &Effective) -> Self {
        Self {
            enabled: effective.config.enabled,
            dry_run: effective.config.dry_run,
            preset: effective.preset.name(),
        }
    }
}

pub(super) fn answer<T: Serialize>(
    action: &str,
    data: T,
    config: InForce,
    timestamp: DateTime<Utc>,
) -> Result<HttpResponse, ApiError> {
    let internal = |error: serde_json::Error| ApiError::internal(&error.to_string());
    let outcome = Outcome {
        success: true,
        action: action.to_owned(),
        data: serde_json::to_value(data).map_err(internal)?,
        config,
        timestamp,
    };
    let body = serde_json::to_vec(&outcome).map_err(internal)?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/json"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body))
}

/// A variant in the answer of a check.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArmBody {
    /// Its id.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// The primary metric's value.
    pub success_rate: Option<f64>,
    /// Its units.
    pub sample_size: i64,
}

impl From<&Arm> for ArmBody {
    fn from(arm: &Arm) -> Self {
        Self {
            variant_id: arm.variant_id,
            variant_name: arm.name.clone(),
            success_rate: arm.value,
            sample_size: arm.units,
        }
    }
}

/// Both ends of an interval, in percent.
#[derive(Debug, Serialize, ToSchema)]
pub struct PercentRange {
    /// Lower end.
    pub lower: Option<f64>,
    /// Upper end.
    pub upper: Option<f64>,
}

/// What holds at any moment; it decides nothing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnytimeValid {
    /// Evidence against "no difference".
    pub e_value: f64,
    /// Lower limit of the lift, in percent.
    pub lower: Option<f64>,
    /// Upper limit of the lift, in percent.
    pub upper: Option<f64>,
}

/// A safety check.
#[derive(Debug, Serialize, ToSchema)]
pub struct SafetyCheckBody {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was found.
    pub message: String,
    /// The number that was found.
    pub value: Option<f64>,
    /// What it is held against.
    pub threshold: Option<f64>,
    /// `info`, `warning` or `critical`.
    #[schema(value_type = String)]
    pub severity: podium_promotion::safety::Severity,
}

impl From<&SafetyCheck> for SafetyCheckBody {
    fn from(check: &SafetyCheck) -> Self {
        Self {
            name: check.name.clone(),
            passed: check.passed,
            message: check.message.clone(),
            value: check.value,
            threshold: check.threshold,
            severity: check.severity,
        }
    }
}

/// A criterion of eligibility.
#[derive(Debug, Serialize, ToSchema)]
pub struct CriterionBody {
    /// Its name.
    pub name: String,
    /// Whether it is met.
    pub met: bool,
    /// What was measured.
    pub measured: Option<f64>,
    /// What is required.
    pub required: Option<f64>,
    /// Both in words.
    pub text: String,
}

/// The answer of a check.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckBody {
    /// Whether every criterion is met.
    pub eligible: bool,
    /// `promote`, `not_yet`, `blocked` or `inconclusive`.
    pub verdict: &'static str,
    /// The experiment's id.
    pub experiment_id: i64,
    /// The experiment.
    pub experiment_name: String,
    /// The primary metric.
    pub primary_metric: String,
    /// The treatment that the answer is about: the winner, or what comes nearest.
    pub winning_variant: Option<ArmBody>,
    /// The control.
    pub control_variant: Option<ArmBody>,
    /// Sequential confidence in percent.
    pub confidence: Option<f64>,
    /// Lift in percent.
    pub improvement: Option<f64>,
    /// Two-sided 95 % interval of the lift, in percent.
    pub interval: Option<PercentRange>,
    /// Lift in percent, shrunk by the effects that are expected.
    pub shrunk_improvement: Option<f64>,
    /// How the confidence was found.
    pub method: Option<String>,
    /// Looks so far.
    pub looks: usize,
    /// What holds at any moment.
    pub anytime_valid: Option<AnytimeValid>,
    /// The four safety checks.
    pub safety_checks: Vec<SafetyCheckBody>,
    /// Everything that is not met.
    pub reasons: Vec<String>,
    /// Every criterion, met or not.
    pub criteria: Vec<CriterionBody>,
    /// When it could become eligible at the present rate.
    pub eligible_at: Option<DateTime<Utc>>,
}

impl From<&Checked> for CheckBody {
    fn from(checked: &Checked) -> Self {
        let (decision, evidence) = (&checked.decision, &checked.evidence);
        let figures = decision.figures.as_ref();
        let interval = figures.and_then(|figures| figures.interval);
        let anytime = figures.and_then(|figures| figures.anytime_valid);
        let criteria = decision.criteria.iter().map(|criterion| CriterionBody {
            name: criterion.name.clone(),
            met: criterion.met,
            measured: criterion.measured,
            required: criterion.required,
            text: criterion.text.clone(),
        });
        Self {
            eligible: decision.is_eligible(),
            verdict: decision.verdict.name(),
            experiment_id: evidence.experiment.id,
            experiment_name: evidence.experiment.name.clone(),
            primary_metric: evidence.experiment.primary_metric.clone(),
            winning_variant: checked
                .candidate()
                .map(|treatment| ArmBody::from(&treatment.arm)),
            control_variant: evidence.control.as_ref().map(ArmBody::from),
            confidence: figures.map(|figures| figures.confidence),
            improvement: figures.and_then(|figures| figures.improvement),
            interval: interval.map(|(lower, upper)| PercentRange {
                lower: Some(lower),
                upper: Some(upper),
            }),
            shrunk_improvement: figures.and_then(|figures| figures.shrunk_improvement),
            method: figures.map(|figures| figures.method.clone()),
            looks: figures.map_or(0, |figures| figures.looks),
            anytime_valid: anytime.map(|anytime| AnytimeValid {
                e_value: anytime.e_value,
                lower: anytime.lower,
                upper: anytime.upper,
            }),
            safety_checks: decision
                .safety_checks
                .iter()
                .map(SafetyCheckBody::from)
                .collect(),
            reasons: decision.reasons.clone(),
            criteria: criteria.collect(),
            eligible_at: decision.eligible_at,
        }
    }
}

/// The answer of a promotion.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotedBody {
    /// Always true.
    pub success: bool,
    /// The experiment.
    pub experiment_name: String,
    /// The winner's id.
    pub promoted_variant_id: i64,
    /// The winner.
    pub promoted_variant_name: String,
    /// Sequential confidence in percent.
    pub confidence: Option<f64>,
    /// Lift in percent.
    pub improvement: Option<f64>,
    /// The promotion; null in a dry run.
    pub promotion_id: Option<Uuid>,
    /// Deliveries that were queued, or in a dry run would have been.
    pub notifications_sent: usize,
    /// The smallest relative drop in conversion that the guard finds with 80 % within the watch at present traffic (0.2 is
    /// 20 %); null where nothing is compared.
    pub detectable_drop: Option<f64>,
    /// Whether it was not eligible and was forced.
    pub forced: bool,
    /// Record of the decision; null in a dry run.
    pub decision_id: Option<i64>,
    /// The check that it rests on.
    pub check: CheckBody,
}

impl From<&Promoted> for PromotedBody {
    fn from(promoted: &Promoted) -> Self {
        let checked = &promoted.checked;
        let about = checked.decision.candidate == Some(promoted.variant_id);
        let figures = checked.decision.figures.as_ref().filter(|_| about);
        Self {
            success: true,
            experiment_name: checked.evidence.experiment.name.clone(),
            promoted_variant_id: promoted.variant_id,
            promoted_variant_name: promoted.variant_name.clone(),
            confidence: figures.map(|figures| figures.confidence),
            improvement: figures.and_then(|figures| figures.improvement),
            promotion_id: promoted.promotion.as_ref().map(|promotion| promotion.id),
            notifications_sent: promoted.notifications,
            detectable_drop: promoted.detectable_drop,
            forced: promoted.forced,
            decision_id: promoted.record_id,
            check: CheckBody::from(&**checked),
        }
    }
}

/// An experiment that could not be checked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unchecked {
    /// Its id.
    pub experiment_id: i64,
    /// Its name.
    pub experiment_name: String,
    /// Always false.
    pub eligible: bool,
}

/// One experiment of a scan.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScanItem {
    /// The experiment, where the check does not name it.
    #[serde(flatten)]
    pub unchecked: Option<Unchecked>,
    /// `promoted`, `would_promote`, `not_eligible`, `excluded`, `skipped` or `failed`.
    pub outcome: &'static str,
    /// Whether it was promoted.
    pub promoted: bool,
    /// The promotion.
    pub promotion_id: Option<Uuid>,
    /// Why it was skipped or failed.
    pub error: Option<String>,
    /// The check, unless it failed.
    #[serde(flatten)]
    pub check: Option<CheckBody>,
}

impl From<&Item> for ScanItem {
    fn from(item: &Item) -> Self {
        Self {
            unchecked: item.checked.is_none().then(|| Unchecked {
                experiment_id: item.experiment_id,
                experiment_name: item.experiment_name.clone(),
                eligible: false,
            }),
            outcome: item.outcome.name(),
            promoted: item.promotion_id.is_some(),
            promotion_id: item.promotion_id,
            error: item.error.as_ref().map(ToString::to_string),
            check: item.checked.as_deref().map(CheckBody::from),
        }
    }
}

/// The answer of a scan.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScanBody {
    /// Running experiments.
    pub scanned: usize,
    /// Those that met every criterion.
    pub eligible: usize,
    /// Those that were promoted.
    pub promoted: usize,
    /// Those that were passed over: excluded, or somebody was faster, or the hour's limit was reached.
    pub skipped: usize,
    /// Those that could not be decided.
    pub failed: usize,
    /// Every one, the oldest first.
    pub results: Vec<ScanItem>,
}

impl From<&Scan> for ScanBody {
    fn from(scan: &Scan) -> Self {
        Self {
            scanned: scan.items.len(),
            eligible: scan.eligible(),
            promoted: scan.promoted(),
            skipped: scan.skipped(),
            failed: scan.failed(),
            results: scan.items.iter().map(ScanItem::from).collect(),
        }
    }
}

/// The answer of a rollback.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolledBackBody {
    /// Always true.
    pub success: bool,
    /// The promotion.
    pub promotion_id: Uuid,
    /// The experiment.
    pub experiment_name: String,
    /// What was the winner.
    pub promoted_variant_name: String,
    /// When it was rolled back; null in a dry run.
    pub rollback_at: Option<DateTime<Utc>>,
    /// Why.
    pub reason: Option<String>,
}

impl From<&Promotion> for RolledBackBody {
    fn from(promotion: &Promotion) -> Self {
        Self {
            success: true,
            promotion_id: promotion.id,
            experiment_name: promotion.experiment_name.clone(),
            promoted_variant_name: promotion.promoted_variant_name.clone(),
            rollback_at: promotion.rollback_at,
            reason: promotion.rollback_reason.clone(),
        }
    }
}

impl RolledBackBody {
    pub(super) fn would(promotion: &Promotion, reason: &str) -> Self {
        Self {
            reason: Some(reason.to_owned()),
            ..Self::from(promotion)
        }
    }
}

/// How a promotion is watched.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PromotionWatch)]
#[serde(rename_all = "camelCase")]
pub struct WatchBody {
    /// The promotion.
    pub promotion_id: Uuid,
    /// The winner.
    pub promoted_variant_name: String,
    /// When it was promoted.
    pub promoted_at: DateTime<Utc>,
    /// The winner's share of traffic at the step in force, in percent.
    pub share_percent: f64,
    /// Share of units that are held back on the control while it is watched, in percent.
    pub holdback_percent: f64,
    /// When the watch ends by plan.
    pub watch_until: DateTime<Utc>,
    /// When it ended.
    pub watch_ended_at: Option<DateTime<Utc>>,
    /// The smallest relative drop in conversion that the guard finds with 80 % within the watch, at the traffic of the
    /// promotion (0.2 is 20 %); null where nothing is compared.
    pub detectable_drop: Option<f64>,
    /// What the guard found last: `quiet`, `conversion_warning`, `error_warning`, `site_errors`, `conversion_harm`,
    /// `error_harm`; null before its first look.
    pub finding: Option<String>,
    /// When that was.
    pub read_at: Option<DateTime<Utc>>,
}

impl From<WatchNote> for WatchBody {
    fn from(note: WatchNote) -> Self {
        Self {
            promotion_id: note.promotion_id,
            promoted_variant_name: note.winner_name,
            promoted_at: note.promoted_at,
            share_percent: note.share.to_f64(),
            holdback_percent: note.holdback.to_f64(),
            watch_until: note.watch_until,
            watch_ended_at: note.watch_ended_at,
            detectable_drop: note.detectable_drop,
            finding: note.finding,
            read_at: note.read_at,
        }
    }
}

/// What is in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigurationBody {
    /// The values.
    #[schema(value_type = Object)]
    pub config: PromotionConfig,
    /// The layer that each value came from, in an object of the same shape.
    #[schema(value_type = Object)]
    pub sources: Value,
    /// Every preset by name.
    #[schema(value_type = Object)]
    pub presets: Map<String, Value>,
    /// Whether the settings can be used.
    pub validation: Validation,
    /// The preset in force.
    pub preset: &'static str,
    /// The preset below which nobody may go.
    pub floor: &'static str,
}

/// Whether settings can be used.
#[derive(Debug, Serialize, ToSchema)]
pub struct Validation {
    /// Whether they can.
    pub valid: bool,
    /// Everything that is wrong.
    pub errors: Vec<String>,
}

impl ConfigurationBody {
    pub(super) fn of(effective: &Effective, errors: Vec<String>) -> Self {
        let presets = Preset::ALL.into_iter().map(|preset| {
            let values = serde_json::to_value(preset.config()).unwrap_or_default();
            (preset.name().to_owned(), values)
        });
        Self {
            config: effective.config.clone(),
            sources: effective.sources.clone(),
            presets: presets.collect(),
            validation: Validation {
                valid: errors.is_empty(),
                errors,
            },
            preset: effective.preset.name(),
            floor: effective.floor.name(),
        }
    }
}
