//! How to read the figures of a report, in sentences.

use super::compare::as_float;
use super::gathered::Decided;

/// What a report says beside its figures.
pub(super) fn notes(decided: &Decided, client_units: i64, units: i64) -> Vec<String> {
    let evidence = &decided.evidence;
    let mut notes = vec![
        "Top-level p-values and intervals, and guardrail verdicts, are for one look at a planned end; `anytime` holds at \
         every look, `sequential` is what promotion decides by."
            .to_owned(),
        "`bayesian` is for reading: a threshold on a chance or a loss is not safe when figures are looked at again and \
         again."
            .to_owned(),
        "The least improvement that promotion asks of the observed lift costs power where the truth is near it, and \
         guarantees nothing about the true lift; expect less than the report shows."
            .to_owned(),
    ];
    let treatments = evidence.treatments.len();
    if treatments > 1 {
        notes.push(format!(
            "{treatments} treatments: each has its boundary at alpha divided by {treatments}; p-values of the primary metric are \
             adjusted by Bonferroni over treatments, those of secondary metrics and guardrails by Holm, the others by \
             Benjamini and Hochberg; `adjustedLnEValueBetter` is the closed test with e-values beside it."
        ));
    } else {
        notes.push(
            "The primary metric decides; p-values of secondary metrics and guardrails are adjusted by Holm, those of the \
             others by Benjamini and Hochberg."
                .to_owned(),
        );
    }
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
        notes.push(format!(
            "This is analysis {}, of units that were assigned since {}, with {:.1} % of alpha left; `performance` has all \
             units.",
            open.number,
            open.analysis.start.format("%Y-%m-%d %H:%M UTC"),
            100.0 * open.analysis.unspent
        ));
    }
    notes
}
