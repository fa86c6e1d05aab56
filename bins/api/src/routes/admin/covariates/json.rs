//! Covariates as JSON.

use podium_domain::fault::{Pointer, code};
use podium_domain::text::UNIT_ID_CHARS;
use podium_storage::experiments::covariates::CovariateRow;

use super::rows::{Batch, value};
use crate::json::{Fields, Malformed, Node, long};

/// The one member of the document.
const LIST: &str = "covariates";

/// Where an entry stands.
pub(super) fn pointer(index: i64) -> String {
    format!("/{LIST}/{index}")
}

/// Reads the document, handing rows on in groups of `group` until `hand_on` says `false`; what is left, and the faults, are
/// in the batch.
///
/// # Errors
/// [`Malformed`].
pub(super) fn read(
    body: &[u8],
    group: usize,
    mut hand_on: impl FnMut(Vec<CovariateRow>) -> bool,
) -> Result<Batch, Malformed> {
    let mut batch = Batch::default();
    match long::list(body, LIST)? {
        Ok(list) => long::entries(list, |index, node| {
            take_entry(&mut batch, index, node);
            batch.rows.len() < group || hand_on(std::mem::take(&mut batch.rows))
        })?,
        Err(faults) => {
            for fault in faults.into_vec() {
                batch.fault(-1, fault.pointer, fault.code, fault.detail);
            }
        }
    }
    Ok(batch)
}

fn take_entry(batch: &mut Batch, index: usize, node: &Node<'_>) {
    let place = i64::try_from(index).unwrap_or(i64::MAX);
    let at = Pointer::root().member(LIST).element(index);
    if !matches!(node, Node::Object(..)) {
        batch.fault(place, at.into(), code::WRONG_TYPE, "must be an object");
        return;
    }
    let mut fields = Fields::new(node, at).camel_only();
    let unit = fields.key("unit", *UNIT_ID_CHARS.end());
    let unit = fields.require("unit", unit);
    let value = number(&mut fields);
    let value = fields.require("value", value);
    fields.refuse_unknown();
    let faults = std::mem::take(&mut fields.faults);
    if let (Some(unit), Some(value), true) = (unit, value, faults.is_empty()) {
        batch.rows.push(CovariateRow {
            place,
            unit: unit.to_owned(),
            value,
        });
    }
    for fault in faults.into_vec() {
        batch.fault(place, fault.pointer, fault.code, fault.detail);
    }
}

fn number(fields: &mut Fields<'_, '_>) -> Option<podium_domain::decimal::Decimal4> {
    let read = match fields.take("value")? {
        Node::Number(number) => value(number),
        _ => Err((code::WRONG_TYPE, "must be a number".to_owned())),
    };
    read.map_err(|(code, detail)| fields.fault("value", code, detail))
        .ok()
}
