//! Reads the figures through the HTTP API.

use std::time::Duration;

use serde::Deserialize;

use crate::client::Client;
use crate::data::Log;
use crate::error::DemoError;

/// A 95 % interval; both ends are fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// Clicks per impression.
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Name of the control.
    pub control: String,
    /// Name of the treatment.
    pub treatment: String,
    /// Relative change of the click rate, a fraction.
    pub lift: f64,
    /// Its interval.
    pub lift_interval: Interval,
    /// Two-sided, of the pooled z-test.
    pub p_value: f64,
}

/// One variant at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct PositionResults {
    /// From 1.
    pub position: u64,
    /// Name of the variant.
    pub variant: String,
    /// Clicks per impression there.
    pub rate: Rate,
}

/// One item.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemResults {
    /// The item.
    pub item_id: String,
    /// Clicks per impression of it.
    pub rate: Rate,
}

/// Everything that is shown of one campaign.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignResults {
    /// Name of the experiment.
    pub experiment: String,
    /// Control first.
    pub variants: Vec<VariantResults>,
    /// Treatment against control.
    pub comparison: Comparison,
    /// By position, control first.
    pub positions: Vec<PositionResults>,
    /// Best first.
    pub top_items: Vec<ItemResults>,
}

/// x
pub async fn wait_until_counted(_client: &Client, _logs: &[Log]) -> Result<(), DemoError> {
    todo!()
}
/// x
pub async fn read(_client: &Client, _experiment: &str) -> Result<CampaignResults, DemoError> {
    todo!()
}
