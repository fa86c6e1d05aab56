//! Administration: experiments, variants, overrides, covariates, the audit log, alerts, people,
//! notifications. For holders of a token.
//!
//! Reading and changing are done by the storage crate; what is here translates. To add a route, write its handler in
//! the module of its kind, add a row to that module's `routes()` and its name to that module's document.

use utoipa::OpenApi;

use crate::routes::Route;

pub mod alerts;
pub mod api_keys;
pub mod audit;
pub mod bodies;
pub mod common;
pub mod covariates;
pub mod experiments;
pub mod lifecycle;
pub mod notification_configs;
pub mod notification_logs;
pub mod overrides;
pub(crate) mod read;
pub mod users;
pub mod variants;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    let mut routes = experiments::routes();
    routes.extend(lifecycle::routes());
    routes.extend(variants::routes());
    routes.extend(overrides::routes());
    routes.extend(covariates::routes());
    routes.extend(audit::routes());
    routes.extend(alerts::routes());
    routes.extend(users::routes());
    routes.extend(notification_configs::routes());
    routes.extend(notification_logs::routes());
    routes.extend(api_keys::routes());
    routes
}

/// The documented operations of these modules.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = experiments::ExperimentsApi::openapi();
    document.merge(lifecycle::LifecycleApi::openapi());
    document.merge(variants::VariantsApi::openapi());
    document.merge(overrides::OverridesApi::openapi());
    document.merge(covariates::CovariatesApi::openapi());
    document.merge(audit::AuditApi::openapi());
    document.merge(alerts::AlertsApi::openapi());
    document.merge(users::UsersApi::openapi());
    document.merge(notification_configs::NotificationConfigsApi::openapi());
    document.merge(notification_logs::NotificationLogsApi::openapi());
    document.merge(api_keys::ApiKeysApi::openapi());
    document
}
