//! The verdict on a bandit over variants: the winner rule decides, on estimates that stay honest although the bandit
//! chose who sees what.

use podium_domain::experiment::Status;

use super::super::bodies::{BanditArmBody, BanditBody, Range};
use super::{Ahead, Facts, is_over, percent, won};

/// What the estimates say, in every state after the start.
pub(super) fn verdict(facts: &Facts<'_>, body: &BanditBody) -> String {
    let winner = body.winner.as_deref().and_then(|name| arm(body, name));
    if let Some((winner, lead)) = winner.zip(winner.and_then(|winner| winner.difference_anytime)) {
        return won(facts, &ahead(winner, lead, body.outcome));
    }
    if let Some(losers) = proved_worse(body) {
        let worse = format!(
            "{losers} is worse than the control in units with {}, by the interval that holds at any look",
            body.outcome
        );
        return if is_over(facts.status) {
            format!("No winner: {worse}.{}", recorded(facts, body))
        } else {
            format!("Stop: {worse}.")
        };
    }
    let standing = standing(body, facts.status);
    match facts.status {
        Status::Paused => format!(
            "Paused: {standing}. While it is paused nobody is assigned; resume it to go on, or end it and keep the control."
        ),
        status if is_over(status) => format!("No winner: {standing}.{}", recorded(facts, body)),
        _ => format!(
            "Keep running: {standing}. Meanwhile the variants that seem better get more traffic."
        ),
    }
}

fn arm<'b>(body: &'b BanditBody, name: &str) -> Option<&'b BanditArmBody> {
    body.arms.iter().find(|arm| arm.variant_name == name)
}

/// The interval holds at any look; the probability does not, and is told as a reading.
fn ahead<'b>(winner: &'b BanditArmBody, lead: Range, outcome: &str) -> Ahead<'b> {
    let name = &winner.variant_name;
    let lead = format!(
        "it is ahead of the control by {:.3} to {:.3} percentage points in units with {outcome} (an interval that holds at \
         any look) and probably the best ({})",
        100.0 * lead.lower,
        100.0 * lead.upper,
        probability(winner)
    );
    Ahead {
        variant_id: winner.variant_id,
        name,
        ship: format!("Ship {name}: {lead}."),
        lead,
        sure: String::new(),
    }
}

fn probability(arm: &BanditArmBody) -> String {
    arm.probability_best.map_or_else(
        || "not known".to_owned(),
        |probability| percent(100.0 * probability),
    )
}

/// Who lost, where every treatment did.
fn proved_worse(body: &BanditBody) -> Option<String> {
    let is_worse = |arm: &&BanditArmBody| {
        let interval = arm.difference_anytime.as_ref();
        interval.is_some_and(|interval| interval.upper < 0.0)
    };
    let treatments: Vec<&BanditArmBody> = body.arms.iter().filter(|arm| !arm.is_control).collect();
    match treatments.as_slice() {
        [only] if is_worse(only) => Some(only.variant_name.clone()),
        [_, _, ..] if treatments.iter().all(is_worse) => Some("every treatment".to_owned()),
        _ => None,
    }
}

/// Who leads, and what he lacks.
fn standing(body: &BanditBody, status: Status) -> String {
    let yet = if is_over(status) { "" } else { " yet" };
    let missing = body.missing.join("; ");
    match body.leader.as_deref().and_then(|name| arm(body, name)) {
        None => format!("it is not known{yet} who is likeliest to be the best ({missing})"),
        Some(leader) if leader.is_control => format!(
            "the control is likeliest to be the best ({}), and no variant has won{yet}",
            probability(leader)
        ),
        Some(leader) => format!(
            "{} is likeliest to be the best ({}), but has not won{yet} ({missing})",
            leader.variant_name,
            probability(leader)
        ),
    }
}

/// What was recorded although the figures name no winner: who forced a promotion, or declared a winner, knows more.
fn recorded(facts: &Facts<'_>, body: &BanditBody) -> String {
    let winner = |id: i64| body.arms.iter().find(|arm| arm.variant_id == id);
    match facts.recorded.and_then(winner) {
        None => " Keep the control.".to_owned(),
        Some(arm) if facts.promoted => format!(" {} was promoted all the same.", arm.variant_name),
        Some(arm) => format!(
            " {} is recorded as the winner all the same.",
            arm.variant_name
        ),
    }
}
