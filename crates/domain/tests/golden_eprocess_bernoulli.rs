//! The exact e-processes against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::eprocess::{converters, multinomial};

#[test]
fn golden_eprocess_bernoulli() {
    check("eprocess_bernoulli.json", |kind, input| match kind {
        "converters" => of_converters(input),
        "multinomial" => of_split(input),
        other => unreachable!("unknown kind {other}"),
    });
}

fn of_converters(input: &Input<'_>) -> Result<Answer, StatsError> {
    let evidence = converters(
        input.number("x_a"),
        input.number("x_b"),
        input.number("share"),
        input.number("k"),
        input.number("alpha"),
    )?;
    Ok(Answer::default()
        .number("ln_e2", evidence.ln_e2)
        .number("ln_e1", evidence.ln_e1)
        .number("p2", evidence.p2)
        .number("p1", evidence.p1)
        .flag("reject2", evidence.reject2)
        .flag("reject1", evidence.reject1))
}

fn of_split(input: &Input<'_>) -> Result<Answer, StatsError> {
    let evidence = multinomial(
        &input.numbers("counts"),
        &input.numbers("weights"),
        input.number("k"),
    )?;
    Ok(Answer::default()
        .number("ln_e", evidence.ln_e)
        .number("p", evidence.p))
}
