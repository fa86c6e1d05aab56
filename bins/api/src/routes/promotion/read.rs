//! Reading the body of the promotion route.

use podium_domain::fault::{Pointer, code};
use podium_domain::text::{REASON_CHARS, TextFault, check_reason};
use podium_promotion::config::Request;
use serde_json::Value;
use uuid::Uuid;

use crate::json::{self, Fields};
use crate::problem::ApiError;
use crate::request::{ADMIN, Ctx, Media};

/// Characters of a name.
const NAME: usize = 128;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Check,
    Promote,
    Scan,
    Rollback,
}

impl Action {
    const ALL: [Self; 4] = [Self::Check, Self::Promote, Self::Scan, Self::Rollback];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Promote => "promote",
            Self::Scan => "scan",
            Self::Rollback => "rollback",
        }
    }
}

/// A body without faults.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) action: Action,
    pub(super) experiment: Option<String>,
    pub(super) variant: Option<String>,
    /// The promotion; none when the text names none that could exist.
    pub(super) promotion: Option<Uuid>,
    pub(super) reason: Option<String>,
    /// The reason, where force is asked for.
    pub(super) force: Option<String>,
    pub(super) request: Request,
}

/// The action as far as it can be read, so that the role is checked before anything else is told; and the body.
pub(super) async fn command(
    ctx: &Ctx,
) -> Result<(Option<Action>, Result<Command, ApiError>), ApiError> {
    let body = ctx.body(ADMIN, Media::Any).await?;
    let node = json::parse(&body)?;
    let mut fields = Fields::new(&node, Pointer::root()).camel_only();
    let action = action(&mut fields);
    let command = rest(&mut fields, action);
    fields.refuse_unknown();
    let command = match (fields.finish(), command) {
        (Ok(()), Some(command)) => checked(ctx, command),
        (Ok(()), None) => Err(ApiError::internal("a body without faults was not read")),
        (Err(error), _) => Err(error),
    };
    Ok((action, command))
}

/// Presets and settings are checked by the engine, which knows what they may be.
fn checked(ctx: &Ctx, command: Command) -> Result<Command, ApiError> {
    let environment = ctx.state.engine.environment();
    match environment.resolve(None, &command.request) {
        Ok(_) => Ok(command),
        Err(faults) => Err(ApiError::validation(faults)),
    }
}

fn action(fields: &mut Fields<'_, '_>) -> Option<Action> {
    let text = fields.string("action", 1, 32);
    let name = fields.require("action", text)?;
    let action = Action::ALL.into_iter().find(|action| action.name() == name);
    if action.is_none() {
        let names = Action::ALL.map(Action::name).join(", ");
        fields.fault(
            "action",
            code::UNKNOWN_VALUE,
            format!("must be one of {names}"),
        );
    }
    action
}

fn rest(fields: &mut Fields<'_, '_>, action: Option<Action>) -> Option<Command> {
    let experiment = fields.string("experimentName", 1, NAME);
    let variant = fields.string("variantName", 1, NAME).map(str::to_owned);
    let promotion = fields.string("promotionId", 1, NAME);
    let reason = fields.string("reason", *REASON_CHARS.start(), *REASON_CHARS.end());
    let force = fields.boolean("force").unwrap_or(false);
    let request = Request {
        preset: fields.string("preset", 1, NAME).map(str::to_owned),
        config: fields
            .object("config")
            .and_then(|raw| serde_json::from_str::<Value>(raw).ok()),
        dry_run: fields.boolean("dryRun"),
    };
    let action = action?;
    if matches!(action, Action::Check | Action::Promote) {
        fields.require("experimentName", experiment);
    }
    if action == Action::Rollback {
        fields.require("promotionId", promotion);
        blank(fields, reason);
    }
    let force = force && action == Action::Promote;
    if force {
        blank(fields, reason);
    }
    let reason = reason.map(str::to_owned);
    Some(Command {
        action,
        experiment: experiment.map(str::to_owned),
        variant,
        promotion: promotion.and_then(|text| text.parse().ok()),
        force: reason.clone().filter(|_| force),
        reason,
        request,
    })
}

/// A reason must say something.
fn blank(fields: &mut Fields<'_, '_>, reason: Option<&str>) {
    if let Some(reason) = fields.require("reason", reason)
        && let Err(fault @ TextFault::Blank) = check_reason(reason)
    {
        // What else may be wrong with it was found when it was read.
        fields.fault("reason", fault.code(), fault.to_string());
    }
}
