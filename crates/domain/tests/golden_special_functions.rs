//! Distribution functions against reference numbers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may end them"
)]

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::special as f;

#[test]
fn golden_special_functions() {
    check("special_functions.json", answer);
}

fn answer(kind: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let of = |name: &str| input.number(name);
    let answer = Answer::default();
    Ok(match kind {
        "norm" => {
            let z = of("z");
            answer
                .number("cdf", f::norm_cdf(z))
                .number("sf", f::norm_sf(z))
                .number("ln_sf", f::norm_ln_sf(z))
                .number("ln_cdf", f::norm_ln_cdf(z))
                .number("pdf", f::norm_pdf(z))
        }
        "norm_ln_sf" => answer.number("ln_sf", f::norm_ln_sf(of("z"))),
        "norm_isf" => answer.number("isf", f::norm_isf(of("p"))),
        "t" => answer
            .number("sf", f::t_sf(of("t"), of("df")))
            .number("ln_sf", f::t_ln_sf(of("t"), of("df"))),
        "t_isf" => answer.number("isf", f::t_isf(of("p"), of("df"))),
        "chi2" => answer
            .number("sf", f::chi2_sf(of("x"), of("df")))
            .number("ln_sf", f::chi2_ln_sf(of("x"), of("df"))),
        "beta" => {
            let tails = f::beta_tails(of("x"), of("a"), of("b"));
            answer
                .number("cdf", tails.cdf)
                .number("sf", tails.sf)
                .number("ln_cdf", tails.ln_cdf)
                .number("ln_sf", tails.ln_sf)
        }
        "ln_beta" => answer.number("ln_beta", f::ln_beta(of("a"), of("b"))),
        _ => panic!("unknown kind {kind}"),
    })
}
