//! Sample size, power and minimum detectable effect against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::power::{
    Baseline, Level, Sides, minimum_detectable_lift, power, sample_size,
};
use podium_domain::stats::{StatsError, count_from_f64};

#[test]
fn golden_power_sample_size() {
    check("power_sample_size.json", answer);
}

fn answer(kind: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let number = |name: &str| input.number(name);
    let level = Level::new(number("alpha"), Sides::from_f64(number("sides"))?)?;
    let units = || {
        Ok((
            count_from_f64(number("n_a"))?,
            count_from_f64(number("n_b"))?,
        ))
    };
    let baseline = if kind.ends_with("mean") {
        Baseline::Mean {
            mean: number("mean_a"),
            sd: number("sd"),
        }
    } else {
        Baseline::Proportion(number("p_a"))
    };
    match kind {
        "n_proportion" | "n_mean" => {
            let got = sample_size(
                baseline,
                number("lift"),
                level,
                number("power"),
                number("ratio"),
            )?;
            Ok(Answer::default()
                .number("n_a", got.n_a)
                .whole("n_a_ceil", got.n_a_ceil)
                .whole("n_b_ceil", got.n_b_ceil))
        }
        "power_proportion" => {
            let (n_a, n_b) = units()?;
            let got = power(baseline, number("lift"), n_a, n_b, level)?;
            Ok(Answer::default().number("power", got))
        }
        "mde_mean" | "mde_proportion" => {
            let (n_a, n_b) = units()?;
            let got = minimum_detectable_lift(baseline, n_a, n_b, level, number("power"))?;
            Ok(Answer::default().number("mde_relative", got))
        }
        _ => unreachable!("unknown kind {kind}"),
    }
}
