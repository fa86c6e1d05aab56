//! The sample ratio test against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::srm::chi_square;

#[test]
fn golden_srm_chi2() {
    check("srm_chi2.json", answer);
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let test = chi_square(
        &input.numbers("counts"),
        &input.numbers("weights"),
        input.number("threshold"),
    )?;
    Ok(Answer::default()
        .number("chi2", test.chi2)
        .integer("df", test.df)
        .number("p", test.p)
        .number("ln_p", test.ln_p)
        .flag("mismatch", test.mismatch))
}
