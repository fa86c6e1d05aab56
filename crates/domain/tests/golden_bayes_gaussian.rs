//! The Gaussian model of an effect against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::bayes::{GaussianPrior, posterior_effect};

#[test]
fn golden_bayes_gaussian() {
    check("bayes_gaussian.json", answer);
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let prior = GaussianPrior::new(input.number("prior_mean"), input.optional("prior_sd"))?;
    let got = posterior_effect(
        input.number("estimate"),
        input.number("se"),
        &prior,
        input.number("credibility"),
    )?;
    Ok(Answer::default()
        .number("post_mean", got.mean)
        .number("post_sd", got.sd)
        .number("prob_positive", got.prob_positive)
        .number("prob_negative", got.prob_negative)
        .logarithm("ln_prob_negative", got.ln_prob_negative)
        .logarithm("ln_prob_positive", got.ln_prob_positive)
        .number("risk_choose_b", got.risk_choose_b)
        .number("risk_choose_a", got.risk_choose_a)
        .number("lower", got.interval.lower)
        .number("upper", got.interval.upper)
        .number("shrink_factor", got.shrink_factor))
}
