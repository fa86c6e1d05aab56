//! What people are told of a promotion.

use chrono::{DateTime, Utc};
use podium_domain::notification::{
    Audience, Channel, Check, Event, Evidence, IntervalPercent, Level, Message, Named, Subject,
};
use podium_storage::promotions::model::{Metadata, Promotion};
use podium_storage::rollouts::Watched;
use serde_json::Value;

use crate::config::{Environment, Notifications, PromotionConfig};
use crate::decide::Decision;
use crate::engine::Checked;
use crate::safety::SafetyCheck;

/// Who hears a message of this level; `None` when nobody is to.
fn audience(notifications: &Notifications, level: Level) -> Option<Audience> {
    let least = notifications.minimum_level.parse().unwrap_or(Level::Info);
    let channels: Vec<Channel> = notifications
        .channels
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    let heard = notifications.enabled && level >= least && !channels.is_empty();
    heard.then_some(Audience::Channels(channels))
}

/// As [`audience`], where the message also ends something: who was told of that is told of its end.
fn heard(notifications: &Notifications, level: Level) -> Audience {
    audience(notifications, level).unwrap_or_else(Audience::nobody)
}

/// Who hears what happens to a promotion later on: whom its own configuration names.
fn heard_of(config: Value, level: Level) -> Audience {
    let config: Option<PromotionConfig> = serde_json::from_value(config).ok();
    config.map_or_else(Audience::default, |config| {
        heard(&config.notifications, level)
    })
}

/// Who hears of an alert of this level about an experiment with this configuration as JSON.
pub(crate) fn alert_audience(
    environment: &Environment,
    level: Level,
    config: Option<&str>,
) -> Audience {
    let config: Option<Value> = config.and_then(|config| serde_json::from_str(config).ok());
    let layer = config
        .as_ref()
        .and_then(|config| config.get("autoPromotion"));
    heard(&environment.standing(layer).notifications, level)
}

/// The channels on which a promotion is told, with its level; `None` when nobody is to hear of it.
pub(crate) fn told_on(config: &PromotionConfig) -> Option<(Vec<Channel>, Level)> {
    match audience(&config.notifications, Level::Info)? {
        Audience::Channels(channels) => Some((channels, Level::Info)),
        _ => None,
    }
}

fn named(id: i64, name: &str) -> Named {
    Named {
        id,
        name: name.to_owned(),
    }
}

fn checks(decision: &Decision) -> Vec<Check> {
    let check = |check: &SafetyCheck| Check {
        name: check.name.clone(),
        passed: check.passed,
        message: check.message.clone(),
        value: check.value,
        threshold: check.threshold,
    };
    decision.safety_checks.iter().map(check).collect()
}

/// The two-sided interval of the lift, where there is one.
fn interval(decision: &Decision) -> Option<IntervalPercent> {
    let (lower, upper) = decision.figures.as_ref()?.interval?;
    Some(IntervalPercent {
        lower: Some(lower),
        upper: Some(upper),
    })
}

fn about(event: Event, level: Level, promotion: &Promotion, at: DateTime<Utc>) -> Message {
    let control = promotion
        .control_variant_id
        .zip(promotion.control_variant_name.as_deref());
    Message {
        experiment: Some(named(promotion.experiment_id, &promotion.experiment_name)),
        variant: Some(named(
            promotion.promoted_variant_id,
            &promotion.promoted_variant_name,
        )),
        control: control.map(|(id, name)| named(id, name)),
        ..Message::new(event, level, Subject::Promotion(promotion.id), at)
    }
}

/// That a winner was promoted. It ends a hold, also where nobody hears the news.
pub(crate) fn promoted(
    config: &PromotionConfig,
    promotion: &Promotion,
    decision: &Decision,
    metric: &str,
    by: Option<&str>,
    reason: Option<&str>,
) -> Message {
    let audience = heard(&config.notifications, Level::Info);
    let details = Evidence {
        metric: Some(metric.to_owned()),
        confidence_percent: promotion.confidence,
        improvement_percent: promotion.improvement,
        interval: interval(decision),
        sample_size: promotion.sample_size,
    };
    let detailed = config.notifications.include_detailed_metrics;
    Message {
        evidence: if detailed {
            details
        } else {
            Evidence::default()
        },
        checks: checks(decision),
        actor: by.map(str::to_owned),
        reason: reason.map(str::to_owned),
        audience,
        ..about(
            Event::Promotion,
            Level::Info,
            promotion,
            promotion.promoted_at,
        )
    }
}

/// That a safety check keeps a proved winner from its promotion.
pub(crate) fn held(checked: &Checked) -> Option<Message> {
    let (config, decision) = (&checked.effective.config, &checked.decision);
    let evidence = &checked.evidence;
    let audience = audience(&config.notifications, Level::Warning)?;
    let (winner, figures) = (checked.candidate()?, decision.figures.as_ref());
    let subject = Subject::Experiment(evidence.experiment.id);
    let control = evidence.control.as_ref();
    let details = Evidence {
        metric: Some(evidence.experiment.primary_metric.clone()),
        confidence_percent: figures.map(|figures| figures.confidence),
        improvement_percent: figures.and_then(|figures| figures.improvement),
        interval: interval(decision),
        sample_size: Some(winner.arm.units),
    };
    Some(Message {
        experiment: Some(named(evidence.experiment.id, &evidence.experiment.name)),
        variant: Some(named(winner.arm.variant_id, &winner.arm.name)),
        control: control.map(|arm| named(arm.variant_id, &arm.name)),
        evidence: if config.notifications.include_detailed_metrics {
            details
        } else {
            Evidence::default()
        },
        checks: checks(decision),
        reason: Some(decision.reasons.join("; ")),
        audience,
        ..Message::new(Event::Hold, Level::Warning, subject, evidence.now)
    })
}

/// That a promotion failed half-way, and nothing was changed.
pub(crate) fn failed(
    config: &PromotionConfig,
    evidence: &crate::evidence::Evidence,
    by: Option<&str>,
    reason: &str,
) -> Option<Message> {
    let audience = audience(&config.notifications, Level::Warning)?;
    let experiment = &evidence.experiment;
    let subject = Subject::Experiment(experiment.id);
    Some(Message {
        experiment: Some(named(experiment.id, &experiment.name)),
        actor: by.map(str::to_owned),
        reason: Some(reason.to_owned()),
        audience,
        ..Message::new(
            Event::PromotionFailed,
            Level::Warning,
            subject,
            evidence.now,
        )
    })
}

/// That a promotion was taken back: by a person a warning, by the engine critical. Who was told of the promotion is told
/// of this.
pub(crate) fn rolled_back(promotion: &Promotion, by: Option<&str>, reason: &str) -> Message {
    let level = if by.is_some() {
        Level::Warning
    } else {
        Level::Critical
    };
    let metadata: Metadata = serde_json::from_value(promotion.metadata.clone()).unwrap_or_default();
    let at = promotion.rollback_at.unwrap_or(promotion.promoted_at);
    Message {
        actor: by.map(str::to_owned),
        reason: Some(reason.to_owned()),
        audience: heard_of(metadata.config, level),
        ..about(Event::Rollback, level, promotion, at)
    }
}

/// That a promotion was watched to its end and stands.
pub(crate) fn watch_ended(promotion: &Watched) -> Message {
    let subject = Subject::Promotion(promotion.promotion_id);
    Message {
        experiment: Some(named(promotion.experiment_id, &promotion.experiment_name)),
        variant: Some(named(promotion.winner_id, &promotion.winner_name)),
        audience: heard_of(promotion.config.clone(), Level::Info),
        ..Message::new(Event::WatchEnded, Level::Info, subject, promotion.now)
    }
}
