//! Welch's test against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::mean::{MeanSummary, welch};
use podium_domain::stats::{StatsError, count_from_f64};

#[test]
fn golden_welch_t() {
    check("welch_t.json", answer);
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let arm = |n: &str, mean: &str, variance: &str| {
        MeanSummary::new(
            count_from_f64(input.number(n))?,
            input.number(mean),
            input.number(variance),
        )
    };
    let (a, b) = (
        arm("n_a", "mean_a", "var_a")?,
        arm("n_b", "mean_b", "var_b")?,
    );
    let test = welch(&a, &b, input.number("confidence"))?;
    Ok(Answer::default()
        .number("diff", test.diff)
        .number("se", test.se)
        .number("t", test.t)
        .number("df", test.df)
        .p_values("", test.p)
        .interval("ci", test.interval))
}
