//! What people are told when something was promoted, rolled back, held, or went wrong.
//!
//! A [`Message`] says what happened, in facts; how Slack, e-mail, PagerDuty or a webhook show it is the business of the
//! channels. Whoever makes one hands it to the outbox in the transaction that makes the change. To add an [`Event`],
//! give it a name, a title and a sentence in [`text`], and say whether it closes what an earlier one opened.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::words::wire_names;

pub mod text;

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// A Slack incoming webhook.
    Slack,
    /// A PagerDuty service, over Events API v2.
    Pagerduty,
    /// An e-mail address.
    Email,
    /// An HTTP endpoint that speaks Standard Webhooks.
    Webhook,
}

wire_names!(Channel {
    Slack => "slack",
    Pagerduty => "pagerduty",
    Email => "email",
    Webhook => "webhook",
});

/// How urgent a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Info,
    /// Somebody should look at it today.
    Warning,
    /// Somebody should look at it now.
    Critical,
}

wire_names!(Level {
    Info => "info",
    Warning => "warning",
    Critical => "critical",
});

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// It waits to be sent, or to be sent again.
    Pending,
    /// It arrived.
    Sent,
    /// It was given up.
    Failed,
}

wire_names!(DeliveryStatus {
    Pending => "pending",
    Sent => "sent",
    Failed => "failed",
});

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A winner got all traffic.
    Promotion,
    /// A promotion was taken back.
    Rollback,
    /// A winner would have been promoted, but something forbids it.
    Hold,
    /// A promotion was attempted and failed half-way; nothing was changed.
    PromotionFailed,
    /// A promotion was watched to its end and stands.
    WatchEnded,
    /// An alert opened.
    AlertOpened,
    /// An alert closed itself.
    AlertClosed,
    /// A message could not be delivered.
    DeadLetter,
    /// Somebody tries out a configuration.
    Test,
}

wire_names!(Event {
    Promotion => "promotion",
    Rollback => "rollback",
    Hold => "hold",
    PromotionFailed => "promotion_failed",
    WatchEnded => "watch_ended",
    AlertOpened => "alert_opened",
    AlertClosed => "alert_closed",
    DeadLetter => "dead_letter",
    Test => "test",
});

/// What a message is about. Messages about one thing are delivered to one target in order, and PagerDuty keeps them in
/// one incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Subject {
    /// A promotion.
    Promotion(Uuid),
    /// An alert.
    Alert(i64),
    /// An experiment that is held.
    Experiment(i64),
    /// The notification configuration of a target.
    Target(Uuid),
}

impl Subject {
    /// `promotion:<id>`, `alert:<id>`, `experiment:<id>` or `target:<id>`: at most 47 characters.
    #[must_use]
    pub fn dedup_key(&self) -> String {
        match self {
            Self::Promotion(id) => format!("promotion:{id}"),
            Self::Alert(id) => format!("alert:{id}"),
            Self::Experiment(id) => format!("experiment:{id}"),
            Self::Target(id) => format!("target:{id}"),
        }
    }
}

/// An experiment or a variant: its id, and its name at the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Numeric id.
    pub id: i64,
    /// Name for people.
    pub name: String,
}

/// An interval of a lift in percent. A side that is not finite is open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntervalPercent {
    /// Lower limit, in percent.
    pub lower: Option<f64>,
    /// Upper limit, in percent.
    pub upper: Option<f64>,
}

/// What the data said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Primary metric, such as `conversion_rate`.
    pub metric: Option<String>,
    /// Confidence that the variant is better, in percent.
    pub confidence_percent: Option<f64>,
    /// Lift against control, in percent; may be negative.
    pub improvement_percent: Option<f64>,
    /// Interval of the lift.
    pub interval: Option<IntervalPercent>,
    /// Units of the variant.
    pub sample_size: Option<i64>,
}

/// One safety check or criterion and how it came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Such as `Error Rate Check`.
    pub name: String,
    /// Whether it allows the promotion.
    pub passed: bool,
    /// What was found, in words.
    pub message: String,
    /// What was measured, in the check's own unit.
    #[serde(default)]
    pub value: Option<f64>,
    /// What it was compared with, in the same unit.
    #[serde(default)]
    pub threshold: Option<f64>,
}

/// What an alert says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// What is watched, such as `error_rate`.
    pub kind: String,
    /// What was found, in words.
    pub message: String,
    /// What was measured, in the alert's own unit.
    #[serde(default)]
    pub value: Option<f64>,
    /// What it was compared with, in the same unit.
    #[serde(default)]
    pub threshold: Option<f64>,
}

/// Who gets a message, before the recipients' own preferences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every enabled configuration of these channels whose levels hold that of the message.
    Channels(Vec<Channel>),
    /// As with all channels, but not this configuration.
    AllBut(Uuid),
    /// As with all but this configuration, which was disabled, and its owner's others whatever their levels.
    LeftBy(Uuid),
    /// This configuration alone, whatever it wants.
    Only(Uuid),
}

impl Audience {
    /// Nobody hears the news; what it ends is ended all the same.
    #[must_use]
    pub const fn nobody() -> Self {
        Self::Channels(Vec::new())
    }
}

impl Default for Audience {
    fn default() -> Self {
        Self::Channels(Channel::ALL.to_vec())
    }
}

/// Something that people are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// What happened.
    pub event: Event,
    /// How urgent it is.
    pub level: Level,
    /// What it is about.
    pub subject: Subject,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// Experiment that it happened to.
    #[serde(default)]
    pub experiment: Option<Named>,
    /// Winner, or the variant that an alert names.
    #[serde(default)]
    pub variant: Option<Named>,
    /// Control that the winner was compared with.
    #[serde(default)]
    pub control: Option<Named>,
    /// What the data said. Leave it empty where detailed metrics are not wanted.
    #[serde(default)]
    pub evidence: Evidence,
    /// Safety checks.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// The alert, when it is about one.
    #[serde(default)]
    pub alert: Option<Alert>,
    /// Why it happened, as far as somebody said so.
    #[serde(default)]
    pub reason: Option<String>,
    /// User that did it; `None` when the engine did it by itself.
    #[serde(default)]
    pub actor: Option<String>,
    /// Who gets it. Not part of what is kept.
    #[serde(skip)]
    pub audience: Audience,
}

impl Message {
    /// A message for everybody who wants it, with nothing but its four facts. Further ones are fields.
    #[must_use]
    pub fn new(event: Event, level: Level, subject: Subject, occurred_at: DateTime<Utc>) -> Self {
        Self {
            event,
            level,
            subject,
            occurred_at,
            experiment: None,
            variant: None,
            control: None,
            evidence: Evidence::default(),
            checks: Vec::new(),
            alert: None,
            reason: None,
            actor: None,
            audience: Audience::default(),
        }
    }

    /// The key of what this message ends: a promotion by its rollback or the end of its watch, a hold by the promotion
    /// that follows, an alert by its closing, and what was told about a target by its disabling, which is to page again.
    #[must_use]
    pub fn closes(&self) -> Option<String> {
        match self.event {
            Event::Rollback | Event::WatchEnded | Event::AlertClosed => {
                Some(self.subject.dedup_key())
            }
            Event::Promotion => self
                .experiment
                .as_ref()
                .map(|experiment| Subject::Experiment(experiment.id).dedup_key()),
            Event::DeadLetter if matches!(self.audience, Audience::LeftBy(_)) => {
                Some(self.subject.dedup_key())
            }
            _ => None,
        }
    }

    /// Whether it only ends something, so that nobody is paged for it.
    #[must_use]
    pub const fn only_closes(&self) -> bool {
        matches!(self.event, Event::WatchEnded | Event::AlertClosed)
    }

    /// Tells this message from every other one, and is the same when the same thing is told twice: subject and event,
    /// with the time where a subject can have the event more than once. At most 90 characters.
    #[must_use]
    pub fn key(&self) -> String {
        let (subject, event) = (self.subject.dedup_key(), self.event.name());
        match self.event {
            Event::Hold | Event::Test => {
                format!("{subject}:{event}:{}", self.occurred_at.timestamp_micros())
            }
            // That a target was disabled is always news; one that refuses everything is, once an hour, and so is an
            // experiment whose promotion fails at every scan.
            Event::DeadLetter if matches!(self.audience, Audience::LeftBy(_)) => format!(
                "{subject}:{event}:disabled:{}",
                self.occurred_at.timestamp_micros()
            ),
            Event::DeadLetter | Event::PromotionFailed => {
                let hour = self.occurred_at.timestamp().div_euclid(3_600);
                format!("{subject}:{event}:{hour}")
            }
            _ => format!("{subject}:{event}"),
        }
    }
}

#[cfg(test)]
mod tests;
