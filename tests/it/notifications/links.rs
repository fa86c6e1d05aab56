//! What messages link to is there.

use podium_notifications::Links;
use podium_tests::TestApp;
use serde_json::Value;

use super::*;

/// Each link leads to the page of the API and to an operation that the page shows.
#[tokio::test(flavor = "multi_thread")]
async fn every_link_leads_to_an_operation_of_the_page() {
    let app = TestApp::start().await;
    let document = app.get("/api/v1/openapi.json").await.ok();
    let links = Links::new(Some("https://podium.example.com"));
    let about = |subject| Message {
        subject,
        experiment: None,
        ..promotion(1)
    };
    let about_an_experiment = Message {
        subject: Subject::Target(Uuid::nil()),
        ..promotion(1)
    };
    for message in [
        about(Subject::Promotion(Uuid::nil())),
        about(Subject::Alert(1)),
        about(Subject::Experiment(1)),
        about(Subject::Target(Uuid::nil())),
        about_an_experiment,
    ] {
        let link = links.page(&message).unwrap();
        let operation = link.strip_prefix("https://podium.example.com/docs/#/");
        let (tag, id) = operation.unwrap().split_once('/').unwrap();
        let paths = document["paths"].as_object().unwrap();
        let mut operations = paths
            .values()
            .flat_map(|path| path.as_object().unwrap().values());
        let shown = operations.any(|known: &Value| {
            known["operationId"] == id
                && known["tags"]
                    .as_array()
                    .is_some_and(|tags| tags.contains(&tag.into()))
        });
        assert!(shown, "{link}");
    }
    let page = app.get("/docs/swagger-initializer.js").await;
    assert!(
        page.text().contains("\"deepLinking\": true"),
        "{}",
        page.text()
    );
}
