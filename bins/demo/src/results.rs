//! Reads the figures through the HTTP API. Nothing is computed here, so what is shown is what any client would get.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::data::{Campaign, Log};
use crate::error::DemoError;

/// A unit has one impression, so its share of clickers is the click rate, with the tests of a proportion.
pub const METRIC: &str = "click_conversion_rate";
/// Items that are shown.
const TOP_ITEMS: u32 = 5;
/// Totals follow the events within a second or two, after a long outage within minutes.
const COUNTING: Duration = Duration::from_secs(120);
/// Between two looks at the totals; admin routes are limited to some calls a second.
const LOOK: Duration = Duration::from_millis(200);

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// Clicks per impression.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Rate {
    /// Impressions.
    pub impressions: u64,
    /// Clicks.
    pub clicks: u64,
    /// Clicks per impression, a fraction.
    pub rate: f64,
    /// Wilson's interval of the rate.
    pub interval: Interval,
}

/// One variant.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantResults {
    /// Its name.
    pub name: String,
    /// Whether the others are compared with it.
    pub is_control: bool,
    /// Units that are analysed.
    pub units: u64,
    /// Over all positions and items.
    pub total: Rate,
}

/// The treatment against the control.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Name of the treatment.
    pub variant_name: String,
    /// Relative change of the click rate, a fraction.
    pub relative_lift: f64,
    /// Its interval.
    pub relative_lift_interval: Interval,
    /// Two-sided, of the pooled z-test.
    pub p_value: f64,
}

/// One variant at one position.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PositionResults {
    /// From 1.
    pub position: u64,
    /// Name of the variant.
    pub variant_name: String,
    /// Clicks per impression there.
    #[serde(flatten)]
    pub rate: Rate,
}

/// Whether the position matters in one variant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PositionTest {
    /// Name of the variant.
    pub variant_name: String,
    /// p-value of equal click rates at all positions (Pearson's chi-square).
    pub p_value: f64,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ItemResults {
    /// The item.
    pub id: String,
    /// Clicks in all variants.
    pub clicks: u64,
    /// Its figures in each variant that showed it.
    pub variants: Vec<ItemInVariant>,
}

/// One item in one variant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemInVariant {
    /// Name of the variant.
    pub variant_name: String,
    /// Clicks per impression of it.
    #[serde(flatten)]
    pub rate: Rate,
}

/// Everything that is shown of one campaign.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignResults {
    /// Name of the experiment.
    pub experiment: String,
    /// Control first.
    pub variants: Vec<VariantResults>,
    /// Each treatment against the control.
    pub comparisons: Vec<Comparison>,
    /// By variant and position, control first.
    pub positions: Vec<PositionResults>,
    /// By variant, control first.
    pub position_tests: Vec<PositionTest>,
    /// Items with the most clicks.
    pub top_items: Vec<ItemResults>,
    /// What the report advises.
    pub verdict: String,
}

/// What is read of a variant in `performance`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Performance {
    variant_name: String,
    is_control: bool,
    units: u64,
    impressions: u64,
    clicks: u64,
}

/// What is read of `lift`.
#[derive(Deserialize)]
struct Lift {
    variants: Vec<MetricValue>,
    comparisons: Vec<Comparison>,
}

/// What is read of a variant in `lift`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    variant_name: String,
    value: f64,
    interval: Interval,
}

/// What is read of `position-analysis`.
#[derive(Deserialize)]
struct Positions {
    positions: Vec<PositionResults>,
    tests: Vec<PositionTest>,
}

/// What is read of `report`.
#[derive(Deserialize)]
struct Report {
    verdict: String,
}

/// Waits until the totals hold every event of `logs`. They follow the events with a short delay.
///
/// # Errors
/// [`DemoError::NotCounted`] when they do not come, and the errors of the requests.
pub async fn wait_until_counted(
    client: &Client,
    campaign: Campaign,
    logs: &[Log],
) -> Result<(), DemoError> {
    let since = Instant::now();
    loop {
        let totals: Vec<Performance> = about(client, campaign, "performance").await?;
        // What somebody else sent to the experiment may be there too.
        let counted = |log: &Log| {
            let total = totals
                .iter()
                .find(|total| total.variant_name == log.policy.name());
            total.is_some_and(|total| {
                total.impressions >= log.rows.len() as u64 && total.clicks >= log.clicks() as u64
            })
        };
        if logs.iter().all(counted) {
            return Ok(());
        }
        if since.elapsed() > COUNTING {
            return Err(DemoError::NotCounted {
                experiment: campaign.experiment().to_owned(),
                waited: COUNTING,
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Reads what is shown of a campaign.
///
/// # Errors
/// The errors of the requests, and [`DemoError::Missing`] when the answers do not speak of the same variants.
pub async fn read(client: &Client, campaign: Campaign) -> Result<CampaignResults, DemoError> {
    let totals: Vec<Performance> = about(client, campaign, "performance").await?;
    let lift: Lift = about(client, campaign, &format!("lift?metric={METRIC}")).await?;
    let Positions { positions, tests } = about(client, campaign, "position-analysis").await?;
    let top_items = about(client, campaign, &format!("top-items?limit={TOP_ITEMS}")).await?;
    let Report { verdict } = about(client, campaign, "report").await?;
    let variants = totals
        .into_iter()
        .map(|total| variant(campaign, total, &lift.variants));
    Ok(CampaignResults {
        experiment: campaign.experiment().to_owned(),
        variants: variants.collect::<Result<_, _>>()?,
        comparisons: lift.comparisons,
        positions,
        position_tests: tests,
        top_items,
        verdict,
    })
}

async fn about<T: DeserializeOwned>(
    client: &Client,
    campaign: Campaign,
    what: &str,
) -> Result<T, DemoError> {
    client
        .read(&format!(
            "/api/v1/admin/experiments/{}/{what}",
            campaign.experiment()
        ))
        .await
}

fn variant(
    campaign: Campaign,
    total: Performance,
    values: &[MetricValue],
) -> Result<VariantResults, DemoError> {
    let value = values
        .iter()
        .find(|value| value.variant_name == total.variant_name);
    let value = value.ok_or_else(|| DemoError::Missing {
        experiment: campaign.experiment().to_owned(),
        what: format!("{METRIC} of {}", total.variant_name),
    })?;
    let rate = Rate {
        impressions: total.impressions,
        clicks: total.clicks,
        rate: value.value,
        interval: value.interval,
    };
    Ok(VariantResults {
        name: total.variant_name,
        is_control: total.is_control,
        units: total.units,
        total: rate,
    })
}
