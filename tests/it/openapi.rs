//! The OpenAPI document says what the table of routes says.

use std::collections::BTreeSet;

use podium_api::routes::{Access, table};
use podium_tests::TestApp;
use serde_json::{Value, json};

/// `{id:[0-9]+}` is `{id}` in the document.
fn documented(path: &str) -> String {
    let mut parts = path.split('{');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap();
        plain += &format!("{{{}}}{rest}", name.split(':').next().unwrap());
    }
    plain
}

#[tokio::test(flavor = "multi_thread")]
async fn document_and_routes_agree() {
    let app = TestApp::start().await;
    let document = app.get("/api/v1/openapi.json").await.ok();
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        document["openapi"]
    );
    let paths = document["paths"].as_object().unwrap();
    let operations: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods =
                item.as_object().unwrap().keys().filter(|key| {
                    !matches!(key.as_str(), "parameters" | "summary" | "description")
                });
            methods.map(move |method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let routes: BTreeSet<(String, String)> = table()
        .iter()
        .map(|route| (documented(route.path), route.method.to_string()))
        .collect();
    assert_eq!(operations, routes);
    for route in table() {
        let operation = &paths[&documented(route.path)][route.method.as_str().to_lowercase()];
        let guarded = route.access != Access::Public;
        let security = operation["security"].as_array();
        let anonymous = security.is_none_or(|ways| ways.contains(&json!({})));
        assert_eq!(
            !anonymous, guarded,
            "security of {} {}",
            route.method, route.path
        );
        // Storefront routes may need a key.
        let limited = guarded || route.is_storefront();
        for status in ["401", "403", "429"] {
            assert_eq!(
                operation["responses"][status].is_object(),
                limited,
                "{status} of {} {}",
                route.method,
                route.path
            );
        }
    }
}

/// Every operation has an id of its own, and every reference leads somewhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_whole() {
    let app = TestApp::start().await;
    let document = app.get("/api/v1/openapi.json").await.ok();
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} twice");
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(reference) if key == "$ref" => found.push(reference),
                    other => collect_references(other, found),
                }
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// The browsable page needs nothing from elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_stands_alone() {
    let app = TestApp::start().await;
    let page = app.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(
        !page.text().contains("://"),
        "a link to elsewhere: {}",
        page.text()
    );
}
