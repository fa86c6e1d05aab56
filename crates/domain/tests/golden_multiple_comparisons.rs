//! Adjusted p-values and e-values against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::multiple::{adjust_e_values, adjust_p_values};

#[test]
fn golden_multiple_comparisons() {
    check("multiple_comparisons.json", answer);
}

fn answer(kind: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let some = |values: Vec<f64>| values.into_iter().map(Some);
    match kind {
        "p_values" => {
            let got = adjust_p_values(&input.numbers("p"))?;
            Ok(Answer::default()
                .list("bonferroni", some(got.bonferroni))
                .list("holm", some(got.holm))
                .list("hochberg", some(got.hochberg))
                .list("bh", some(got.benjamini_hochberg))
                .list("by", some(got.benjamini_yekutieli)))
        }
        "e_values" => {
            let got = adjust_e_values(&input.numbers("e"))?;
            Ok(Answer::default().list("adjusted_e", some(got)))
        }
        _ => unreachable!("unknown kind {kind}"),
    }
}
