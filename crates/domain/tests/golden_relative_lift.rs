//! Relative lift against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::lift::{Estimate, relative_lift};

#[test]
fn golden_relative_lift() {
    check("relative_lift.json", answer);
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let arm = |mean: &str, se2: &str| Estimate::new(input.number(mean), input.number(se2));
    let (a, b) = (arm("mean_a", "se2_a")?, arm("mean_b", "se2_b")?);
    let lift = relative_lift(&a, &b, input.number("confidence"))?;
    let log = lift.log_ratio;
    Ok(Answer::default()
        .number("lift", lift.delta.lift)
        .number("delta_se", lift.delta.se)
        .interval("delta", lift.delta.interval)
        .number("p_delta_two_sided", lift.p_delta_two_sided)
        .number("ln_p_delta_two_sided", lift.ln_p_delta_two_sided)
        .text(
            "fieller_kind",
            if lift.fieller.is_some() {
                "bounded"
            } else {
                "unbounded"
            },
        )
        .interval("fieller", lift.fieller)
        .number("log_ratio", log.map(|log| log.log_ratio))
        .number("log_se", log.map(|log| log.se))
        .interval("log", log.map(|log| log.interval))
        .number("p_log_two_sided", log.map(|log| log.p_two_sided)))
}
