//! The whole product on real data: what the API says after the replay equals what was computed from the logs
//! independently, and a second run changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may end them"
)]

mod support;

use std::path::PathBuf;

use podium_api::config::Config;
use podium_demo::data::{Campaign, Policy};
use podium_demo::progress::Progress;
use podium_demo::results::{CampaignResults, Interval, ItemResults, PositionResults, Rate};
use podium_demo::{Demo, Played, table};
use serde_json::Value;
use support::OwnDatabase;

/// Events of the four logs: 40,000 impressions and 38 + 42 + 46 + 69 clicks.
const EVENTS: u64 = 40_195;
/// Of rates and intervals, relative; and what double precision leaves of limits that are 0.
const VALUE: (f64, f64) = (1e-9, 1e-16);
/// Of p-values, relative.
const P_VALUE: (f64, f64) = (1e-8, 0.0);

#[test]
fn golden_replay_equals_the_reference_and_a_second_run_changes_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let database = OwnDatabase::create("demo").await;
        let (first, answers) = run(&database).await;
        let (second, answers_again) = run(&database).await;
        database.drop().await;

        check(&first, &answers);
        assert_eq!(sent(&first), (EVENTS, 0));
        assert_eq!(sent(&second), (EVENTS, EVENTS));
        for (before, after) in first.iter().zip(&second) {
            assert_eq!(before.results, after.results);
            assert_eq!(
                table::render(&before.results),
                table::render(&after.results)
            );
        }
        assert_eq!(answers, answers_again);
    });
}

/// Starts, replays, reads and stops, as one call of the command does.
async fn run(database: &OwnDatabase) -> (Vec<Played>, Vec<Answers>) {
    let settings = [("DATABASE_URL", database.url.as_str()), ("PORT", "0")];
    let demo = Demo::start(Config::read(&settings).unwrap()).await.unwrap();
    let played = demo.play(Progress::Quiet).await.unwrap();
    let mut answers = Vec::new();
    for campaign in Campaign::ALL {
        answers.push(Answers::read(&demo, campaign).await);
    }
    demo.stop().await;
    (played, answers)
}

fn sent(played: &[Played]) -> (u64, u64) {
    let of = |number: fn(&Played) -> u64| played.iter().map(number).sum();
    (
        of(|played| played.replayed.events),
        of(|played| played.replayed.duplicates),
    )
}

/// The answers of the API about one experiment, as any client reads them.
#[derive(Debug, PartialEq)]
struct Answers {
    campaign: Campaign,
    performance: Value,
    click_through_rate: Value,
    click_conversion_rate: Value,
    positions: Value,
    items: Value,
    /// Without the moments at which it was read and folded.
    report: Value,
}

impl Answers {
    async fn read(demo: &Demo, campaign: Campaign) -> Self {
        let read = async |what: &str| -> Value {
            let path = format!("/api/v1/admin/experiments/{}/{what}", campaign.experiment());
            demo.client().read(&path).await.unwrap()
        };
        let mut report = read("report").await;
        for moment in ["lagSeconds", "readAt", "foldedAt"] {
            let found = report.as_object_mut().unwrap().remove(moment);
            assert!(found.is_some(), "{moment}");
        }
        Self {
            campaign,
            performance: read("performance").await,
            click_through_rate: read("lift").await,
            click_conversion_rate: read("lift?metric=click_conversion_rate").await,
            positions: read("position-analysis").await,
            items: read("top-items?limit=1000").await,
            report,
        }
    }
}

type Check = fn(&mut Mismatches, &Value, &CampaignResults, &Answers);

const CHECKS: [(&str, Check); 4] = [
    ("ctr_by_policy.json", check_policies),
    ("ctr_by_position.json", check_positions),
    ("ctr_by_item.json", check_items),
    ("ab_random_vs_bts.json", check_comparison),
];

fn check(played: &[Played], answers: &[Answers]) {
    assert_eq!(
        (played.len(), answers.len()),
        (Campaign::ALL.len(), Campaign::ALL.len())
    );
    let mut found = Mismatches::default();
    for (name, check) in CHECKS {
        let Some(file) = load(name) else { continue };
        for (played, answers) in played.iter().zip(answers) {
            check(&mut found, &file, &played.results, answers);
        }
    }
    found.finish();
}

fn check_policies(
    found: &mut Mismatches,
    file: &Value,
    shown: &CampaignResults,
    answers: &Answers,
) {
    assert_eq!(shown.variants.len(), Policy::ALL.len());
    for (policy, variant) in Policy::ALL.into_iter().zip(&shown.variants) {
        let want = row(file, answers.campaign, Some(policy));
        let path = format!("{} {}", answers.campaign.name(), policy.name());
        assert_eq!(
            (variant.name.as_str(), variant.is_control),
            (policy.name(), policy == Policy::Random)
        );
        found.count(
            &format!("{path} units"),
            &want["impressions"],
            variant.units,
        );
        found.rate(&path, want, variant.total);
        let performance = named(&answers.performance, policy);
        found.count(
            &format!("{path} impressions"),
            &want["impressions"],
            performance["impressions"].as_u64().unwrap(),
        );
        found.count(
            &format!("{path} clicks"),
            &want["clicks"],
            performance["clicks"].as_u64().unwrap(),
        );
        let percent = performance["clickThroughRate"].as_f64().unwrap();
        found.number(
            &format!("{path} clickThroughRate"),
            &want["ctr"],
            percent / 100.0,
            VALUE,
        );
        let ratio = named(&answers.click_through_rate["variants"], policy);
        found.number(
            &format!("{path} click_through_rate"),
            &want["ctr"],
            number(&ratio["value"]),
            VALUE,
        );
        let reported = named(&answers.report["performance"], policy);
        assert_eq!(reported, performance, "{path}: the report and performance");
    }
}

fn check_positions(
    found: &mut Mismatches,
    file: &Value,
    shown: &CampaignResults,
    answers: &Answers,
) {
    assert_eq!(shown.positions.len(), 2 * 3);
    for policy in Policy::ALL {
        let want = row(file, answers.campaign, Some(policy));
        let path = format!("{} {}", answers.campaign.name(), policy.name());
        for want in want["positions"].as_array().unwrap() {
            let here = |row: &&_| is_at(row, policy, want);
            let got = shown
                .positions
                .iter()
                .find(here)
                .unwrap_or_else(|| panic!("{path}: no position {want}"));
            found.rate(
                &format!("{path} position {}", want["position"]),
                want,
                got.rate,
            );
        }
        let test = shown
            .position_tests
            .iter()
            .find(|test| test.variant_name == policy.name())
            .unwrap();
        found.number(
            &format!("{path} p of positions"),
            &want["p_value"],
            test.p_value,
            P_VALUE,
        );
        let test = named(&answers.positions["tests"], policy);
        found.number(
            &format!("{path} chi2"),
            &want["chi2"],
            number(&test["chiSquare"]),
            VALUE,
        );
        found.count(
            &format!("{path} df"),
            &want["df"],
            test["degreesOfFreedom"].as_u64().unwrap(),
        );
    }
}

fn is_at(row: &PositionResults, policy: Policy, want: &Value) -> bool {
    row.variant_name == policy.name() && want["position"].as_u64() == Some(row.position)
}

/// Every item of the full list, and those of the short list that is shown.
fn check_items(found: &mut Mismatches, file: &Value, shown: &CampaignResults, answers: &Answers) {
    let listed: Vec<ItemResults> = serde_json::from_value(answers.items.clone()).unwrap();
    assert!(
        !shown.top_items.is_empty() && listed.starts_with(&shown.top_items),
        "the top is the beginning"
    );
    for policy in Policy::ALL {
        let want = row(file, answers.campaign, Some(policy))["items"]
            .as_array()
            .unwrap();
        let path = format!("{} {} item", answers.campaign.name(), policy.name());
        for want in want
            .iter()
            .filter(|want| want["impressions"].as_u64() != Some(0))
        {
            let id = want["item_id"].to_string();
            let item = listed.iter().find(|item| item.id == id);
            let within = item.and_then(|item| {
                item.variants
                    .iter()
                    .find(|of| of.variant_name == policy.name())
            });
            let got = within.unwrap_or_else(|| panic!("{path} {id} is not listed"));
            found.rate(&format!("{path} {id}"), want, got.rate);
        }
    }
    for item in &listed {
        let clicks: u64 = item.variants.iter().map(|within| within.rate.clicks).sum();
        assert_eq!(
            item.clicks,
            clicks,
            "{}: {}",
            answers.campaign.name(),
            item.id
        );
    }
    assert!(
        listed.is_sorted_by(|a, b| a.clicks >= b.clicks),
        "most clicked first"
    );
}

fn check_comparison(
    found: &mut Mismatches,
    file: &Value,
    shown: &CampaignResults,
    answers: &Answers,
) {
    let want = row(file, answers.campaign, None);
    let path = answers.campaign.name();
    let [comparison] = shown.comparisons.as_slice() else {
        panic!("{path}: {:?}", shown.comparisons)
    };
    assert_eq!(comparison.variant_name, Policy::Bts.name());
    found.number(
        &format!("{path} lift"),
        &want["relative_lift"],
        comparison.relative_lift,
        VALUE,
    );
    found.interval(
        &format!("{path} lift"),
        &want["log_ratio_ci95_as_lift"],
        comparison.relative_lift_interval,
    );
    found.number(
        &format!("{path} p"),
        &want["p_value_two_sided"],
        comparison.p_value,
        P_VALUE,
    );
    let answer = named(&answers.click_conversion_rate["comparisons"], Policy::Bts);
    found.number(
        &format!("{path} z"),
        &want["z_pooled"],
        number(&answer["statistic"]),
        VALUE,
    );
    found.number(
        &format!("{path} difference"),
        &want["difference"],
        number(&answer["difference"]),
        VALUE,
    );
    for (name, pointer) in [
        ("prob_treatment_best", "/bayesian/chanceToBeatControl"),
        ("expected_loss_treatment", "/bayesian/expectedLoss"),
    ] {
        found.number(
            &format!("{path} {name}"),
            &want["bayes_beta11"][name],
            number(answer.pointer(pointer).unwrap()),
            P_VALUE,
        );
    }
    let wald = serde_json::from_value(answer["differenceInterval"].clone()).unwrap();
    found.interval(&format!("{path} difference"), &want["wald_ci95"], wald);
    let ratio = named(&answers.click_through_rate["comparisons"], Policy::Bts);
    found.number(
        &format!("{path} ratio"),
        &want["difference"],
        number(&ratio["difference"]),
        VALUE,
    );
    found.number(
        &format!("{path} ratio lift"),
        &want["relative_lift"],
        number(&ratio["relativeLift"]),
        VALUE,
    );
}

/// Collects what does not match, with a path that names it.
#[derive(Default)]
struct Mismatches {
    failures: Vec<String>,
    compared: usize,
}

impl Mismatches {
    fn count(&mut self, path: &str, want: &Value, got: u64) {
        self.compared += 1;
        if want.as_u64() != Some(got) {
            self.failures
                .push(format!("{path}: expected {want}, got {got}"));
        }
    }

    fn number(&mut self, path: &str, want: &Value, got: f64, (relative, absolute): (f64, f64)) {
        self.compared += 1;
        let wanted = number(want);
        // Written so that NaN does not pass.
        let near = (got - wanted).abs() <= (relative * wanted.abs()).max(absolute);
        if !near {
            self.failures
                .push(format!("{path}: expected {want}, got {got:?}"));
        }
    }

    fn interval(&mut self, path: &str, want: &Value, got: Interval) {
        self.number(&format!("{path}, lower"), &want[0], got.lower, VALUE);
        self.number(&format!("{path}, upper"), &want[1], got.upper, VALUE);
    }

    fn rate(&mut self, path: &str, want: &Value, got: Rate) {
        self.count(
            &format!("{path} impressions"),
            &want["impressions"],
            got.impressions,
        );
        self.count(&format!("{path} clicks"), &want["clicks"], got.clicks);
        self.number(&format!("{path} ctr"), &want["ctr"], got.rate, VALUE);
        self.interval(&format!("{path} wilson95"), &want["wilson95"], got.interval);
    }

    fn finish(self) {
        assert!(
            self.failures.is_empty(),
            "{} failures:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
        println!("{} figures equal the reference", self.compared);
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// The entry of a policy's variant in a list of the API.
fn named(list: &Value, policy: Policy) -> &Value {
    let entries = list
        .as_array()
        .unwrap_or_else(|| panic!("{list} is no list"));
    let found = entries
        .iter()
        .find(|entry| entry["variantName"] == policy.name());
    found.unwrap_or_else(|| panic!("no {} in {list}", policy.name()))
}

fn row(file: &Value, campaign: Campaign, policy: Option<Policy>) -> &Value {
    let wanted = |row: &&Value| {
        row["campaign"] == campaign.name()
            && policy.is_none_or(|policy| row["policy"] == policy.name())
    };
    file["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(wanted)
        .expect("every campaign and policy has a row")
}

/// A file of reference numbers: the project's copy, or that in the folder which `PODIUM_GOLDEN_DIR` names.
fn load(name: &str) -> Option<Value> {
    let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let folder = std::env::var_os("PODIUM_GOLDEN_DIR").map_or_else(own, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join("real").join(name)) else {
        println!("skipped: real/{name} is not there");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("real/{name}: {error}")))
}
