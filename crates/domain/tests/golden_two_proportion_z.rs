//! The two-proportion z test against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::proportion::{Proportion, ZTest, two_proportions};

#[test]
fn golden_two_proportion_z() {
    check("two_proportion_z.json", answer);
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let arm = |x: &str, n: &str| Proportion::from_f64(input.number(x), input.number(n));
    let test = two_proportions(
        arm("x_a", "n_a")?,
        arm("x_b", "n_b")?,
        input.number("confidence"),
    )?;
    let answer = Answer::default()
        .number("rate_a", test.rate_a)
        .number("rate_b", test.rate_b)
        .number("diff", test.diff)
        .interval("ci", test.interval);
    Ok(z_test(
        z_test(answer, "_pooled", Some(test.pooled)),
        "_unpooled",
        test.unpooled,
    ))
}

fn z_test(answer: Answer, suffix: &str, test: Option<ZTest>) -> Answer {
    answer
        .number(&format!("se{suffix}"), test.map(|test| test.se))
        .number(&format!("z{suffix}"), test.map(|test| test.z))
        .p_values(suffix, test.map(|test| test.p))
}
