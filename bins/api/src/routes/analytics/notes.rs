//! How to read the figures of a report, in sentences.

use podium_domain::experiment::ExperimentType;

use super::compare::as_float;
use super::gathered::Decided;

/// What a report says beside its figures.
pub(super) fn notes(decided: &Decided, client_units: i64, units: i64) -> Vec<String> {
    let evidence = &decided.evidence;
    let is_bandit = evidence.experiment.experiment_type == ExperimentType::Bandit.name();
    let mut notes = vec![
        deciding(is_bandit).to_owned(),
        "`bayesian` is for reading: a threshold on a chance or a loss is not safe when figures are looked at again and \
         again."
            .to_owned(),
        "The least improvement that promotion asks of the observed lift costs power where the truth is near it, and \
         guarantees nothing about the true lift; expect less than the report shows."
            .to_owned(),
        families(is_bandit, evidence.treatments.len()),
    ];
    if evidence.traffic.epochs.len() > 1 {
        notes.push(
            "Weights or variants changed while the experiment ran: arms are compared within each stretch of constant weights, \
             and no pooled effect is shown. `variants` holds totals over all stretches, whose differences are no effect."
                .to_owned(),
        );
    }
    if client_units > 0 && units > 0 {
        notes.push(format!(
            "Clients named the variants of {:.1} % of the units: the split check leaves them out, and `anytime` does not \
             suppose the planned shares.",
            100.0 * as_float(client_units) / as_float(units)
        ));
    }
    if let Some(open) = evidence.analysis.as_ref().filter(|open| open.number > 1) {
        let left = if is_bandit {
            String::new()
        } else {
            format!(
                ", with {:.1} % of alpha left",
                100.0 * open.analysis.unspent
            )
        };
        notes.push(format!(
            "This is analysis {}, of units that were assigned since {}{left}; `performance` has all units.",
            open.number,
            open.analysis.start.format("%Y-%m-%d %H:%M UTC"),
        ));
    }
    notes
}

/// Which figures decide.
const fn deciding(is_bandit: bool) -> &'static str {
    if is_bandit {
        "Top-level p-values and intervals, and guardrail verdicts, are for one look at a planned end; `anytime` and \
         `differenceAnytime` hold at every look. Promotion goes by the conditions of a winner that stand under `bandit`: \
         a bandit has no looks, so `sequential` is null."
    } else {
        "Top-level p-values and intervals, and guardrail verdicts, are for one look at a planned end; `anytime` holds at \
         every look, `sequential` is what promotion decides by."
    }
}

/// How several comparisons at once are taken into account.
fn families(is_bandit: bool, treatments: usize) -> String {
    let others = "those of the others by Benjamini and Hochberg";
    if treatments > 1 {
        let boundaries = if is_bandit {
            String::new()
        } else {
            format!("each has its boundary at alpha divided by {treatments}; ")
        };
        return format!(
            "{treatments} treatments: {boundaries}p-values of the primary metric are adjusted by Bonferroni over treatments, \
             those of secondary metrics and guardrails by Holm, {others}; `adjustedLnEValueBetter` is the closed test with \
             e-values beside it."
        );
    }
    let decides = if is_bandit {
        "The outcome under `bandit` decides"
    } else {
        "The primary metric decides"
    };
    format!(
        "{decides}; p-values of secondary metrics and guardrails are adjusted by Holm, {others}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bandit_is_not_said_to_be_decided_by_looks() {
        assert!(deciding(false).contains("`sequential` is what promotion decides by"));
        let bandit = deciding(true);
        assert!(
            bandit.contains("conditions of a winner") && bandit.contains("`sequential` is null")
        );
        assert!(families(false, 3).contains("boundary at alpha divided by 3"));
        for treatments in [1, 3] {
            let text = families(true, treatments);
            assert!(!text.contains("boundary") && !text.contains("primary metric decides"));
        }
    }
}
