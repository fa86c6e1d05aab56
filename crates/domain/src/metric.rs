//! The catalogue of metrics.
//!
//! Units are the unit of analysis. Every metric is made of totals per unit ([`UnitTotal`]); how
//! they are joined is its [`MetricKind`], and that decides the statistical method.
//!
//! To add a metric: a variant of [`Metric`], its wire name, and its kind in [`Metric::kind`].

use crate::event::EventType;
use crate::words::wire_names;

/// A metric of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Clicks per impression.
    ClickThroughRate,
    /// Add-to-carts per impression.
    AddToCartRate,
    /// Purchases per add-to-cart.
    CartToPurchaseRate,
    /// Purchases per impression.
    PurchaseRate,
    /// Share of exposed units with a purchase.
    ConversionRate,
    /// Share of exposed units with an add-to-cart.
    AddToCartConversionRate,
    /// Share of exposed units with a click.
    ClickConversionRate,
    /// Purchase value per exposed unit.
    RevenuePerUser,
    /// Purchase value per distinct session.
    RevenuePerSession,
    /// Purchase value per purchase.
    AverageOrderValue,
    /// Engagement value per exposed unit.
    Engagement,
    /// Errored requests per request.
    ErrorRate,
    /// 95th percentile of request latency in milliseconds.
    P95LatencyMs,
}

wire_names!(Metric {
    ClickThroughRate => "click_through_rate",
    AddToCartRate => "add_to_cart_rate",
    CartToPurchaseRate => "cart_to_purchase_rate",
    PurchaseRate => "purchase_rate",
    ConversionRate => "conversion_rate",
    AddToCartConversionRate => "add_to_cart_conversion_rate",
    ClickConversionRate => "click_conversion_rate",
    RevenuePerUser => "revenue_per_user",
    RevenuePerSession => "revenue_per_session",
    AverageOrderValue => "average_order_value",
    Engagement => "engagement",
    ErrorRate => "error_rate",
    P95LatencyMs => "p95_latency_ms",
});

/// Something that is summed for every unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnitTotal {
    /// Impressions.
    Impressions,
    /// Clicks.
    Clicks,
    /// Add-to-cart events.
    AddToCarts,
    /// Purchase events.
    Purchases,
    /// Value of purchases, in the shop's currency.
    PurchaseValue,
    /// Value of engagement events.
    EngagementValue,
    /// Distinct sessions.
    Sessions,
    /// Requests.
    Requests,
    /// Requests that ended in an error.
    Errors,
}

impl UnitTotal {
    /// Stored units per one: 10,000 for values, which have four decimals, 1 for counts.
    #[must_use]
    pub const fn scale(self) -> u32 {
        match self {
            Self::PurchaseValue | Self::EngagementValue => 10_000,
            _ => 1,
        }
    }

    /// Whether it is a sum of values rather than a count; such metrics are winsorised by default.
    #[must_use]
    pub const fn is_value(self) -> bool {
        self.scale() != 1
    }
}

/// How a metric is made of unit totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Units with at least one event of the type, per exposed unit.
    Proportion {
        /// The event that counts as success.
        event: EventType,
    },
    /// A total per exposed unit.
    Mean {
        /// What is averaged.
        of: UnitTotal,
    },
    /// One total per another, over all units (delta method).
    Ratio {
        /// What is counted.
        numerator: UnitTotal,
        /// Per what.
        denominator: UnitTotal,
    },
    /// A quantile of request latency.
    Quantile {
        /// Which, in percent.
        percent: u8,
    },
}

impl MetricKind {
    /// The name in answers: `proportion`, `mean`, `ratio`, `quantile`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proportion { .. } => "proportion",
            Self::Mean { .. } => "mean",
            Self::Ratio { .. } => "ratio",
            Self::Quantile { .. } => "quantile",
        }
    }
}

impl Metric {
    /// The primary metric where none is named.
    pub const DEFAULT_PRIMARY: Self = Self::ConversionRate;

    /// How the metric is made.
    #[must_use]
    pub const fn kind(self) -> MetricKind {
        use UnitTotal as T;
        match self {
            Self::ClickThroughRate => ratio(T::Clicks, T::Impressions),
            Self::AddToCartRate => ratio(T::AddToCarts, T::Impressions),
            Self::CartToPurchaseRate => ratio(T::Purchases, T::AddToCarts),
            Self::PurchaseRate => ratio(T::Purchases, T::Impressions),
            Self::ConversionRate => MetricKind::Proportion {
                event: EventType::Purchase,
            },
            Self::AddToCartConversionRate => MetricKind::Proportion {
                event: EventType::AddToCart,
            },
            Self::ClickConversionRate => MetricKind::Proportion {
                event: EventType::Click,
            },
            Self::RevenuePerUser => MetricKind::Mean {
                of: T::PurchaseValue,
            },
            Self::RevenuePerSession => ratio(T::PurchaseValue, T::Sessions),
            Self::AverageOrderValue => ratio(T::PurchaseValue, T::Purchases),
            Self::Engagement => MetricKind::Mean {
                of: T::EngagementValue,
            },
            Self::ErrorRate => ratio(T::Errors, T::Requests),
            Self::P95LatencyMs => MetricKind::Quantile { percent: 95 },
        }
    }

    /// Whether the metric guards against harm; lower is better, and it cannot be primary.
    #[must_use]
    pub const fn is_guardrail(self) -> bool {
        matches!(self, Self::ErrorRate | Self::P95LatencyMs)
    }

    /// Whether the metric sums values, so that its unit totals are winsorised by default.
    #[must_use]
    pub const fn is_value(self) -> bool {
        match self.kind() {
            MetricKind::Mean { of } => of.is_value(),
            MetricKind::Ratio { numerator, .. } => numerator.is_value(),
            MetricKind::Proportion { .. } | MetricKind::Quantile { .. } => false,
        }
    }

    /// Reads the name of a primary metric.
    ///
    /// # Errors
    /// [`PrimaryMetricError`] for an unknown name and for a guardrail.
    pub fn parse_primary(name: &str) -> Result<Self, PrimaryMetricError> {
        let metric: Self = name.parse().map_err(|_| PrimaryMetricError::Unknown)?;
        if metric.is_guardrail() {
            return Err(PrimaryMetricError::Guardrail);
        }
        Ok(metric)
    }
}

/// Why a metric cannot be primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrimaryMetricError {
    /// Not in the catalogue.
    #[error("unknown metric; known are {}", Metric::NAMES.join(", "))]
    Unknown,
    /// A guardrail tells of harm, not of success.
    #[error("a guardrail cannot be the primary metric")]
    Guardrail,
}

impl PrimaryMetricError {
    /// The code of this fault in an error answer (see [`crate::fault::code`]).
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unknown => crate::fault::code::UNKNOWN_METRIC,
            Self::Guardrail => crate::fault::code::GUARDRAIL_AS_PRIMARY,
        }
    }
}

const fn ratio(numerator: UnitTotal, denominator: UnitTotal) -> MetricKind {
    MetricKind::Ratio {
        numerator,
        denominator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_complete() {
        let kinds: Vec<_> = Metric::ALL
            .iter()
            .map(|metric| (metric.name(), metric.kind().name()))
            .collect();
        assert_eq!(
            kinds,
            [
                ("click_through_rate", "ratio"),
                ("add_to_cart_rate", "ratio"),
                ("cart_to_purchase_rate", "ratio"),
                ("purchase_rate", "ratio"),
                ("conversion_rate", "proportion"),
                ("add_to_cart_conversion_rate", "proportion"),
                ("click_conversion_rate", "proportion"),
                ("revenue_per_user", "mean"),
                ("revenue_per_session", "ratio"),
                ("average_order_value", "ratio"),
                ("engagement", "mean"),
                ("error_rate", "ratio"),
                ("p95_latency_ms", "quantile"),
            ]
        );
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(*metric));
        }
    }

    #[test]
    fn definitions_are_those_of_the_catalogue() {
        use UnitTotal as T;
        let purchases = MetricKind::Ratio {
            numerator: T::Purchases,
            denominator: T::AddToCarts,
        };
        assert_eq!(Metric::CartToPurchaseRate.kind(), purchases);
        assert_eq!(
            Metric::RevenuePerUser.kind(),
            MetricKind::Mean {
                of: T::PurchaseValue
            }
        );
        assert_eq!(
            Metric::ConversionRate.kind(),
            MetricKind::Proportion {
                event: EventType::Purchase
            }
        );
        assert_eq!(T::PurchaseValue.scale(), 10_000);
        assert_eq!(T::Sessions.scale(), 1);
    }

    #[test]
    fn value_metrics_are_those_in_currency_or_engagement() {
        let value: Vec<_> = Metric::ALL
            .iter()
            .filter(|metric| metric.is_value())
            .map(|metric| metric.name())
            .collect();
        assert_eq!(
            value,
            [
                "revenue_per_user",
                "revenue_per_session",
                "average_order_value",
                "engagement"
            ]
        );
    }

    #[test]
    fn guardrails_are_no_primary_metric() {
        assert_eq!(
            Metric::parse_primary("conversion_rate"),
            Ok(Metric::DEFAULT_PRIMARY)
        );
        let guardrail = Metric::parse_primary("error_rate").unwrap_err();
        assert_eq!(guardrail.code(), "guardrail_as_primary");
        let unknown = Metric::parse_primary("revenue").unwrap_err();
        assert_eq!(unknown.code(), "unknown_metric");
        assert!(unknown.to_string().contains("average_order_value"));
    }
}
