//! A message in words: the title, one sentence, and the facts that every channel shows.

use super::{Event, Evidence, IntervalPercent, Message};

/// A fact for people: what, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Such as `Confidence`.
    pub label: &'static str,
    /// Such as `97.5 %`. Holds text from outside.
    pub value: String,
}

/// What happened, in a few words of our own.
#[must_use]
pub const fn title(event: Event) -> &'static str {
    match event {
        Event::Promotion => "Experiment promoted",
        Event::Rollback => "Promotion rolled back",
        Event::Hold => "Promotion on hold",
        Event::PromotionFailed => "Promotion failed",
        Event::WatchEnded => "Promotion confirmed",
        Event::AlertOpened => "Alert opened",
        Event::AlertClosed => "Alert closed",
        Event::DeadLetter => "Notifications not delivered",
        Event::Test => "Test message",
    }
}

/// What happened, in one sentence. Holds names and reasons from outside, so every channel escapes it.
#[must_use]
pub fn sentence(message: &Message) -> String {
    let experiment = name(message.experiment.as_ref());
    let variant = name(message.variant.as_ref());
    let reason = message.reason.as_deref().unwrap_or("no reason was given");
    match message.event {
        Event::Promotion => format!(
            "Promoted {variant} in {experiment}{}",
            in_brackets(&message.evidence)
        ),
        Event::Rollback => format!("Rolled back {variant} in {experiment}: {reason}"),
        Event::Hold => format!("{experiment} is not promoted: {reason}"),
        Event::PromotionFailed => {
            format!("Promoting {variant} in {experiment} failed, nothing was changed: {reason}")
        }
        Event::WatchEnded => {
            format!("{variant} in {experiment} was watched to the end and stays promoted")
        }
        Event::AlertOpened => format!("{experiment}: {}", alert(message)),
        Event::AlertClosed => format!("{experiment}: over again: {}", alert(message)),
        Event::DeadLetter => format!("A notification could not be delivered: {reason}"),
        Event::Test => "This is what a message of Podium looks like here".into(),
    }
}

/// The facts of a message, in the order of their weight; those that are not known are left out.
#[must_use]
pub fn facts(message: &Message) -> Vec<Fact> {
    let evidence = &message.evidence;
    let name = |named: &super::Named| named.name.clone();
    let alert = message.alert.as_ref();
    [
        ("Experiment", message.experiment.as_ref().map(name)),
        ("Variant", message.variant.as_ref().map(name)),
        ("Control", message.control.as_ref().map(name)),
        (
            "Confidence",
            evidence.confidence_percent.and_then(confidence),
        ),
        ("Improvement", improvement(evidence)),
        ("Metric", evidence.metric.clone()),
        ("Units", evidence.sample_size.map(|units| units.to_string())),
        ("Measured", alert.and_then(|a| number(a.value))),
        ("Limit", alert.and_then(|a| number(a.threshold))),
        (
            "By",
            Some(actor(message)).filter(|_| message.actor.is_some()),
        ),
    ]
    .into_iter()
    .filter_map(|(label, value)| {
        value
            .filter(|value| !value.is_empty())
            .map(|value| Fact { label, value })
    })
    .collect()
}

/// Who did it.
#[must_use]
pub fn actor(message: &Message) -> String {
    match &message.actor {
        Some(user) => format!("user {user}"),
        None => "the promotion engine".into(),
    }
}

fn name(named: Option<&super::Named>) -> &str {
    named.map_or("an experiment", |named| named.name.as_str())
}

fn alert(message: &Message) -> &str {
    message
        .alert
        .as_ref()
        .map_or("an alert", |alert| alert.message.as_str())
}

fn in_brackets(evidence: &Evidence) -> String {
    let confidence = evidence
        .confidence_percent
        .and_then(confidence)
        .map(|text| format!("{text} confidence"));
    let lift = evidence.improvement_percent.and_then(signed);
    let parts: Vec<String> = [confidence, lift].into_iter().flatten().collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
}

/// `+12.3 %`, with the interval where there is one.
fn improvement(evidence: &Evidence) -> Option<String> {
    let lift = evidence.improvement_percent.and_then(signed)?;
    Some(match evidence.interval.and_then(interval) {
        Some(interval) => format!("{lift} ({interval})"),
        None => lift,
    })
}

fn interval(interval: IntervalPercent) -> Option<String> {
    let side = |limit: Option<f64>| limit.and_then(signed);
    match (side(interval.lower), side(interval.upper)) {
        (Some(lower), Some(upper)) => Some(format!("{lower} to {upper}")),
        (Some(lower), None) => Some(format!("at least {lower}")),
        (None, Some(upper)) => Some(format!("at most {upper}")),
        (None, None) => None,
    }
}

/// A confidence: at most two digits behind the point, and never rounded up to 100.
fn confidence(percent: f64) -> Option<String> {
    let text = trimmed(percent, 2)?;
    let text = if percent < 100.0 && text == "100" {
        "99.99".into()
    } else {
        text
    };
    Some(format!("{text} %"))
}

/// A lift with its sign, one digit behind the point.
fn signed(percent: f64) -> Option<String> {
    percent.is_finite().then(|| format!("{percent:+.1} %"))
}

fn number(value: Option<f64>) -> Option<String> {
    trimmed(value?, 4)
}

fn trimmed(value: f64, digits: usize) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    let text = format!("{value:.digits$}");
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}
