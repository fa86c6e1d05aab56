//! Bandits over variants: the winner rule decides, on estimates that stay honest although the data were collected
//! adaptively.

use podium_domain::bandit::truth::winner_conditions;
use podium_domain::stats::special::norm_isf;

use super::criteria::{Criterion, Failure};
use super::standing::Figures;
use crate::config::PromotionConfig;
use crate::evidence::{BanditReading, Treatment};

/// Level of the intervals that are shown.
const LEVEL: f64 = 0.95;

/// What the winner rule asks of a treatment.
pub(super) fn criteria(config: &PromotionConfig, treatment: &Treatment) -> Vec<Criterion> {
    let Some(reading) = &treatment.bandit else {
        return vec![unknown(
            "there is no evidence for the winner rule of bandits",
        )];
    };
    let thresholds = &config.thresholds;
    let sound = Some(reading).filter(|reading| is_sound(reading));
    let Some(conditions) = sound.and_then(|reading| conditions(reading, thresholds.min_confidence))
    else {
        return vec![unknown("the evidence for the winner rule makes no sense")];
    };
    let words = [
        ("confidence", "confidence: probability of being best"),
        ("expected_loss", "confidence: expected loss, a fraction,"),
        (
            "interval",
            "confidence: lower limit of the interval that holds at any moment",
        ),
        ("conversions", "sample: units with the outcome"),
        (
            "control_conversions",
            "sample: units of the control with the outcome",
        ),
    ];
    let mut criteria: Vec<Criterion> = words
        .iter()
        .zip(conditions)
        .map(|((name, text), condition)| {
            let measured = condition.measured.map_or_else(
                || "not known yet".to_owned(),
                |measured| format!("{measured:.6}"),
            );
            let text = format!("{text} is {measured}, {} is required", condition.required);
            Criterion::new(name, (!condition.met).then_some(Failure::Pending), text)
                .numbers(condition.measured, condition.required)
        })
        .collect();
    criteria.push(improvement(reading, thresholds.min_improvement));
    criteria
}

/// What treatments of a bandit are ranked by; none where nothing sound is known.
pub(super) fn probability_best(treatment: &Treatment) -> Option<f64> {
    let reading = treatment.bandit.as_ref();
    reading
        .filter(|reading| is_sound(reading))
        .map(|reading| reading.prob_best)
}

fn unknown(why: &str) -> Criterion {
    Criterion::new("bandit", Some(Failure::Unknown), format!("bandit: {why}"))
}

fn is_sound(reading: &BanditReading) -> bool {
    let numbers = [
        reading.expected_loss,
        reading.control_rate,
        reading.difference,
        reading.standard_error,
    ];
    let limits = reading.interval.unwrap_or_default();
    (0.0..=1.0).contains(&reading.prob_best)
        && numbers.iter().all(|number| number.is_finite())
        && limits.0.is_finite()
        && limits.1.is_finite()
}

fn conditions(
    reading: &BanditReading,
    min_confidence: f64,
) -> Option<[podium_domain::bandit::truth::Condition; 5]> {
    let count = |count: i64| u64::try_from(count).ok();
    winner_conditions(
        reading.prob_best,
        reading.expected_loss,
        reading.control_rate,
        reading.interval,
        (
            count(reading.conversions)?,
            count(reading.control_conversions)?,
        ),
        min_confidence / 100.0,
    )
    .ok()
}

/// In percent of the control's rate.
fn relative(reading: &BanditReading, value: f64) -> Option<f64> {
    let percent = 100.0 * value / reading.control_rate;
    (reading.control_rate > 0.0 && percent.is_finite()).then_some(percent)
}

fn improvement(reading: &BanditReading, required: f64) -> Criterion {
    let measured = relative(reading, reading.difference);
    let met = measured.is_some_and(|lift| lift >= required);
    let text = match measured {
        Some(lift) => format!("improvement: {lift:.2} %, at least {required} % required"),
        None => format!("improvement: not measured yet, at least {required} % required"),
    };
    Criterion::new("improvement", (!met).then_some(Failure::Pending), text)
        .numbers(measured, required)
}

/// What is said about a treatment beside the verdict: its confidence is the probability of being best.
pub(super) fn figures(reading: &BanditReading) -> Figures {
    let half = norm_isf((1.0 - LEVEL) / 2.0) * reading.standard_error;
    let range =
        |lower: f64, upper: f64| Some((relative(reading, lower)?, relative(reading, upper)?));
    Figures {
        confidence: 100.0 * reading.prob_best,
        improvement: relative(reading, reading.difference),
        interval: range(reading.difference - half, reading.difference + half),
        shrunk_improvement: None,
        standard_error: relative(reading, reading.standard_error),
        method: "bandit_winner_rule".to_owned(),
        looks: 0,
        statistic: None,
        boundary: None,
        anytime_valid: None,
    }
}
