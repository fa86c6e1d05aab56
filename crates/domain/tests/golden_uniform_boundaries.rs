//! Time-uniform boundaries against reference numbers.

mod golden;

use golden::{Answer, Input, check};
use podium_domain::stats::StatsError;
use podium_domain::stats::uniform::{
    Stitching, Tuning, normal_one_sided, normal_two_sided, poly_stitching,
};

#[test]
fn golden_uniform_boundaries() {
    check("uniform_boundaries.json", |kind, input| {
        let (v, alpha) = (input.number("v"), input.number("alpha"));
        let bound = match kind {
            "normal_two_sided" => normal_two_sided(v, alpha, tuning(input)?),
            "normal_one_sided" => normal_one_sided(v, alpha, tuning(input)?),
            "poly_stitching" => poly_stitching(v, alpha, stitching(input)),
            other => unreachable!("unknown kind {other}"),
        };
        Ok(Answer::default().number("bound", bound?))
    });
}

fn tuning(input: &Input<'_>) -> Result<Tuning, StatsError> {
    Tuning::new(input.number("v_opt"), input.number("alpha_opt"))
}

fn stitching(input: &Input<'_>) -> Stitching {
    Stitching {
        v_min: input.number("v_min"),
        c: input.number("c"),
        s: input.number("s"),
        eta: input.number("eta"),
    }
}
