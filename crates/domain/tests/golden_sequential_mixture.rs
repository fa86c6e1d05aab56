//! Sequential mixture tests against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::mixture::{effect_scale, sample_scale};

#[test]
fn golden_sequential_mixture() {
    check("sequential_mixture.json", |kind, input| match kind {
        "effect_scale" => of_effect(input),
        "sample_scale" => of_sample(input),
        other => unreachable!("unknown kind {other}"),
    });
}

fn of_effect(input: &Input<'_>) -> Result<Answer, StatsError> {
    let mixture = effect_scale(
        input.number("estimate"),
        input.number("se"),
        input.number("tau"),
        input.number("alpha"),
    )?;
    Ok(Answer::default()
        .number("ln_e2", mixture.ln_e2)
        .number("ln_e1", mixture.ln_e1)
        .number("p2", mixture.p2)
        .number("p1", mixture.p1)
        .interval("cs2", mixture.two_sided)
        .number("cs1_lower", mixture.one_sided_lower)
        .flag("reject2", mixture.reject2)
        .flag("reject1", mixture.reject1))
}

fn of_sample(input: &Input<'_>) -> Result<Answer, StatsError> {
    let mixture = sample_scale(
        input.number("estimate"),
        input.number("se"),
        input.number("n_total"),
        input.number("n_star"),
        input.number("alpha"),
    )?;
    Ok(Answer::default()
        .number("rho", mixture.rho)
        .number("half_width", mixture.half_width)
        .number("lower", mixture.interval.lower)
        .number("upper", mixture.interval.upper)
        .number("ln_e", mixture.ln_e)
        .number("p", mixture.p)
        .flag("reject", mixture.reject))
}
