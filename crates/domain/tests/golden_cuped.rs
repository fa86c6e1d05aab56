//! CUPED against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::cuped::{
    AdjustedComparison, CovariateMoments, CovariateSums, Slope, compare_adjusted,
};
use podium_domain::stats::{StatsError, count_from_f64};

#[test]
fn golden_cuped() {
    check("cuped.json", answer);
}

fn arm(input: &Input<'_>) -> Result<CovariateMoments, StatsError> {
    let sum = |name: &str| input.number(name);
    CovariateMoments::from_sums(&CovariateSums {
        n: count_from_f64(sum("n"))?,
        sum_y: sum("sum_y"),
        sum_x: sum("sum_x"),
        sum_yy: sum("sum_yy"),
        sum_xx: sum("sum_xx"),
        sum_xy: sum("sum_xy"),
    })
}

fn fields(got: &AdjustedComparison) -> Answer {
    Answer::default()
        .number("theta", got.theta)
        .number("mean_a", got.mean_a)
        .number("mean_b", got.mean_b)
        .number("diff", got.diff)
        .number("se", got.se)
        .number("z", got.z)
        .p_values("", got.p)
        .interval("ci", got.interval)
        .number("variance_reduction", got.variance_reduction)
        .number("lift", got.lift.map(|lift| lift.lift))
        .interval("delta", got.lift.map(|lift| lift.interval))
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let (a, b) = (arm(&input.object("a"))?, arm(&input.object("b"))?);
    let confidence = input.number("confidence");
    let compare = |slope: Slope| compare_adjusted(&a, &b, slope, confidence);
    let (within, pooled) = (compare(Slope::WithinArms)?, compare(Slope::Pooled)?);
    Ok(Answer::default()
        .object("within", fields(&within))
        .object("pooled", fields(&pooled)))
}
