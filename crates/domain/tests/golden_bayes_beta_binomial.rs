//! Two rates with beta posteriors against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::bayes::{BetaPrior, compare_rates};
use podium_domain::stats::proportion::Proportion;

#[test]
fn golden_bayes_beta_binomial() {
    check("bayes_beta_binomial.json", answer);
}

fn answer(_: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    let arm = |x: &str, n: &str| Proportion::from_f64(input.number(x), input.number(n));
    let (a, b) = (arm("x_a", "n_a")?, arm("x_b", "n_b")?);
    let prior = BetaPrior::new(input.number("prior_alpha"), input.number("prior_beta"))?;
    let got = compare_rates(a, b, prior, input.number("credibility"))?;
    Ok(Answer::default()
        .number("prob_b_beats_a", got.prob_b_beats_a)
        .number("prob_a_beats_b", got.prob_a_beats_b)
        .logarithm("ln_prob_a_beats_b", got.ln_prob_a_beats_b)
        .logarithm("ln_prob_b_beats_a", got.ln_prob_b_beats_a)
        .number("expected_loss_b", got.expected_loss_b)
        .number("expected_loss_a", got.expected_loss_a)
        .number("mean_a", got.mean_a)
        .number("mean_b", got.mean_b)
        .interval("rate_a", got.rate_a)
        .interval("rate_b", got.rate_b)
        .number("lift_lower", got.lift.map(|lift| lift.lower))
        .number("lift_median", got.lift.map(|lift| lift.median))
        .number("lift_upper", got.lift.map(|lift| lift.upper)))
}
