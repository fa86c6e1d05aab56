//! Calls to copy into a second terminal while the API runs.

use crate::data::Campaign;
use crate::storefront::TRY_OUT;

/// The calls, for the API at `base` (such as `http://127.0.0.1:3000`) with a token for its admin routes. They try
/// out an experiment of their own, so the figures of the replayed ones stay as they are.
#[must_use]
pub fn render(base: &str, token: &str) -> String {
    let report = Campaign::Men.experiment();
    format!(
        r#"Podium goes on serving at {base} until Ctrl-C. In another terminal:

  PODIUM={base}
  TOKEN={token}   # an administrator's, for 24 hours

  # which variant does this shopper get?
  curl -s "$PODIUM/api/v1/experiments/assign" -H 'Content-Type: application/json' \
    -d '{{"user_id": "shopper-1", "experiment": "{TRY_OUT}"}}'

  # the shopper saw an item, and clicked it
  curl -s "$PODIUM/api/v1/experiments/track-impression" -H 'Content-Type: application/json' \
    -d '{{"user_id": "shopper-1", "experiment_id": "{TRY_OUT}", "item_id": 1234, "position": 1}}'
  curl -s "$PODIUM/api/v1/experiments/track-click" -H 'Content-Type: application/json' \
    -d '{{"user_id": "shopper-1", "experiment_id": "{TRY_OUT}", "item_id": 1234, "position": 1}}'

  # what Podium makes of it, and of the logs
  curl -s "$PODIUM/api/v1/admin/experiments/{TRY_OUT}/report" -H "Authorization: Bearer $TOKEN"
  curl -s "$PODIUM/api/v1/admin/experiments/{report}/report" -H "Authorization: Bearer $TOKEN"

Every route, to read and to try: {base}/docs/"#
    )
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn the_calls_name_the_address_the_token_and_valid_bodies() {
        let text = render("http://127.0.0.1:3000", "abc");
        assert!(text.contains("PODIUM=http://127.0.0.1:3000\n") && text.contains("TOKEN=abc "));
        let bodies: Vec<&str> = text
            .split("-d '")
            .skip(1)
            .filter_map(|rest| rest.split('\'').next())
            .collect();
        assert_eq!(bodies.len(), 3);
        for body in bodies {
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["user_id"], "shopper-1");
        }
    }
}
