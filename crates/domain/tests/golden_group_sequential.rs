//! Group-sequential boundaries against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::group_sequential::{
    Spending, boundary, obrien_fleming_constant, pocock_constant,
};
use podium_domain::stats::{StatsError, count_from_f64};

#[test]
fn golden_group_sequential() {
    check("group_sequential.json", |kind, input| match kind {
        "spending" => of_spending(input),
        "classic" => of_constants(input),
        other => unreachable!("unknown kind {other}"),
    });
}

fn spending(input: &Input<'_>) -> Spending {
    let parameter = || input.optional("parameter").unwrap_or(f64::NAN);
    match input.text("spending") {
        "obrien_fleming" => Spending::ObrienFleming,
        "pocock" => Spending::Pocock,
        "power" => Spending::Power(parameter()),
        "hsd" => Spending::Hsd(parameter()),
        "open_rational" => Spending::OpenRational,
        other => unreachable!("unknown spending {other}"),
    }
}

fn of_spending(input: &Input<'_>) -> Result<Answer, StatsError> {
    let looks = boundary(
        &input.numbers("info"),
        &input.numbers("spend_time"),
        input.number("alpha"),
        spending(input),
    )?;
    Ok(Answer::default()
        .list("cum_alpha", looks.iter().map(|look| Some(look.spent)))
        .list("z_bound", looks.iter().map(|look| look.bound)))
}

fn of_constants(input: &Input<'_>) -> Result<Answer, StatsError> {
    let looks = count_from_f64(input.number("looks"))?;
    let looks = u32::try_from(looks).map_err(|_| StatsError::InvalidInput)?;
    let alpha = input.number("alpha_two_sided");
    Ok(Answer::default()
        .number("pocock_c", pocock_constant(looks, alpha)?)
        .number("obf_c", obrien_fleming_constant(looks, alpha)?))
}
