//! What people are told of a promotion.

use chrono::{DateTime, Utc};
use podium_domain::notification::{
    Audience, Channel, Check, Event, Evidence, IntervalPercent, Level, Message, Named, Subject,
};
use podium_storage::promotions::model::{Metadata, Promotion};

use crate::config::{Notifications, PromotionConfig};
use crate::decide::Decision;

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

fn about(event: Event, level: Level, promotion: &Promotion, at: DateTime<Utc>) -> Message {
    let named = |id: i64, name: &str| Named {
        id,
        name: name.to_owned(),
    };
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

/// That a winner was promoted.
pub(crate) fn promoted(
    config: &PromotionConfig,
    promotion: &Promotion,
    decision: &Decision,
    metric: &str,
    by: Option<&str>,
    reason: Option<&str>,
) -> Option<Message> {
    let audience = audience(&config.notifications, Level::Info)?;
    let interval = decision
        .figures
        .as_ref()
        .and_then(|figures| figures.interval);
    let checks = decision.safety_checks.iter().map(|check| Check {
        name: check.name.clone(),
        passed: check.passed,
        message: check.message.clone(),
        value: check.value,
        threshold: check.threshold,
    });
    let details = Evidence {
        metric: Some(metric.to_owned()),
        confidence_percent: promotion.confidence,
        improvement_percent: promotion.improvement,
        interval: interval.map(|(lower, upper)| IntervalPercent {
            lower: Some(lower),
            upper: Some(upper),
        }),
        sample_size: promotion.sample_size,
    };
    let detailed = config.notifications.include_detailed_metrics;
    Some(Message {
        evidence: if detailed {
            details
        } else {
            Evidence::default()
        },
        checks: checks.collect(),
        actor: by.map(str::to_owned),
        reason: reason.map(str::to_owned),
        audience,
        ..about(
            Event::Promotion,
            Level::Info,
            promotion,
            promotion.promoted_at,
        )
    })
}

/// That a promotion was taken back: by a person a warning, by the engine critical. Who was told of the promotion is told
/// of this.
pub(crate) fn rolled_back(
    promotion: &Promotion,
    by: Option<&str>,
    reason: &str,
) -> Option<Message> {
    let level = if by.is_some() {
        Level::Warning
    } else {
        Level::Critical
    };
    let metadata: Metadata = serde_json::from_value(promotion.metadata.clone()).unwrap_or_default();
    let config: Option<PromotionConfig> = serde_json::from_value(metadata.config).ok();
    let audience = match config {
        Some(config) => audience(&config.notifications, level)?,
        None => Audience::default(),
    };
    let at = promotion.rollback_at.unwrap_or(promotion.promoted_at);
    Some(Message {
        actor: by.map(str::to_owned),
        reason: Some(reason.to_owned()),
        audience,
        ..about(Event::Rollback, level, promotion, at)
    })
}
