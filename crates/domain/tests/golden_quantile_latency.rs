//! Quantiles and their ratio against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::quantile::{QuantileGuardrail, quantile, quantile_ratio};

#[test]
fn golden_quantile_latency() {
    check("quantile_latency.json", answer);
}

fn answer(kind: &str, input: &Input<'_>) -> Result<Answer, StatsError> {
    match kind {
        "single" => single(input),
        "ratio" => ratio(input),
        _ => unreachable!("unknown kind {kind}"),
    }
}

fn single(input: &Input<'_>) -> Result<Answer, StatsError> {
    let values = input.numbers("values");
    let got = quantile(&values, input.number("q"), input.number("confidence"))?;
    Ok(Answer::default()
        .number("value", got.value)
        .optional_integer("rank_lower", got.lower.map(|limit| limit.rank))
        .optional_integer("rank_upper", got.upper.map(|limit| limit.rank))
        .number("lower", got.lower.map(|limit| limit.value))
        .number("upper", got.upper.map(|limit| limit.value)))
}

fn ratio(input: &Input<'_>) -> Result<Answer, StatsError> {
    let guardrail = QuantileGuardrail {
        q: input.number("q"),
        confidence: input.number("confidence"),
        margin: input.number("margin"),
        alpha: input.number("alpha"),
    };
    let got = quantile_ratio(&input.numbers("a"), &input.numbers("b"), &guardrail)?;
    Ok(Answer::default()
        .number("quantile_a", got.quantile_a)
        .number("quantile_b", got.quantile_b)
        .number("log_se_a", got.log_se_a)
        .number("log_se_b", got.log_se_b)
        .number("change", got.change)
        .number("lower", got.limits.lower)
        .number("upper", got.limits.upper)
        .text("verdict", got.verdict.name()))
}
