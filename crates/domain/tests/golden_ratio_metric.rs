//! Ratio metrics against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::ratio::{RatioSummary, RatioSums, compare_ratios};
use podium_domain::stats::{StatsError, count_from_f64};

#[test]
fn golden_ratio_metric() {
    check("ratio_metric.json", answer);
}

fn arm(input: &Input<'_>) -> Result<RatioSums, StatsError> {
    let sum = |name: &str| input.number(name);
    Ok(RatioSums {
        n: count_from_f64(sum("n"))?,
        sum_x: sum("sum_x"),
        sum_y: sum("sum_y"),
        sum_xx: sum("sum_xx"),
        sum_yy: sum("sum_yy"),
        sum_xy: sum("sum_xy"),
    })
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let (a, b) = (arm(&input.object("a"))?, arm(&input.object("b"))?);
    let confidence = input.number("confidence");
    let (a, b) = (RatioSummary::from_sums(&a), RatioSummary::from_sums(&b));
    // What is invalid anywhere comes before what is too little in the first arm.
    let invalid = Some(StatsError::InvalidInput);
    let level = confidence > 0.0 && confidence < 1.0;
    if !level || a.err() == invalid || b.err() == invalid {
        return Err(StatsError::InvalidInput);
    }
    let (a, b) = (a?, b?);
    let test = compare_ratios(&a, &b, confidence)?;
    Ok(Answer::default()
        .number("ratio_a", a.ratio())
        .number("ratio_b", b.ratio())
        .number("se2_a", a.se2())
        .number("se2_b", b.se2())
        .number("diff", test.diff)
        .number("se", test.se)
        .number("z", test.z)
        .p_values("", test.p)
        .interval("ci", test.interval)
        .number("lift", test.lift.map(|lift| lift.lift))
        .number("delta_se", test.lift.map(|lift| lift.se))
        .interval("delta", test.lift.map(|lift| lift.interval)))
}
