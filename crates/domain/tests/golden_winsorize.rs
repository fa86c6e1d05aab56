//! Winsorisation against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::winsorize::winsorize;

#[test]
fn golden_winsorize() {
    check("winsorize.json", answer);
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let got = winsorize(
        &input.numbers("a"),
        &input.numbers("b"),
        input.optional("lower"),
        input.optional("upper"),
    )?;
    Ok(Answer::default()
        .number("upper_cap", got.caps.upper())
        .number("lower_cap", got.caps.lower())
        .number("mean_a", got.a.mean)
        .number("var_a", got.a.variance)
        .integer("capped_a", got.a.capped)
        .number("mean_b", got.b.mean)
        .number("var_b", got.b.variance)
        .integer("capped_b", got.b.capped))
}
