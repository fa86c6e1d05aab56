//! Guardrails against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::lift::Estimate;
use podium_domain::stats::noninferiority::{Direction, Margin, non_inferiority};

#[test]
fn golden_noninferiority() {
    check("noninferiority.json", answer);
}

fn answer(kind: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let arm = |mean: &str, se2: &str| Estimate::new(input.number(mean), input.number(se2));
    let (a, b) = (arm("mean_a", "se2_a")?, arm("mean_b", "se2_b")?);
    let direction = match input.text("direction") {
        "lower_is_better" => Direction::LowerIsBetter,
        "higher_is_better" => Direction::HigherIsBetter,
        _ => return Err(StatsError::InvalidInput),
    };
    let margin = match kind {
        "absolute" => Margin::Absolute(input.number("margin")),
        "relative" => Margin::Relative(input.number("margin")),
        _ => unreachable!("unknown kind {kind}"),
    };
    let got = non_inferiority(&a, &b, direction, margin, input.number("alpha"))?;
    Ok(Answer::default()
        .number("z", got.z)
        .number("p", got.p)
        .logarithm("ln_p", got.ln_p)
        .text("verdict", got.verdict.name()))
}
