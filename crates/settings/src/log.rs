//! Logs, and errors in one line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::{ConfigError, Source, text};

/// What servers log unless `RUST_LOG` says otherwise. The HTTP library calls every malformed request of a stranger an
/// error.
pub const SERVERS_LOG: &str = "info,actix_server=warn,actix_http=off";

/// Logs to standard error, as text or as JSON. `RUST_LOG` chooses what, else `default`. A second call keeps the first one's
/// choice.
///
/// # Errors
/// [`ConfigError::Invalid`] for a `RUST_LOG` that cannot be read.
pub fn start_logging(source: &dyn Source, default: &str, json: bool) -> Result<(), ConfigError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(source, default)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
    Ok(())
}

fn filter(source: &dyn Source, default: &str) -> Result<EnvFilter, ConfigError> {
    let directives = text(source, "RUST_LOG");
    EnvFilter::try_new(directives.as_deref().unwrap_or(default)).map_err(|_| ConfigError::Invalid {
        name: "RUST_LOG",
        wanted: "a level (error, warn, info, debug, trace, off) or directives such as info,podium_storage=debug",
    })
}

/// An error with its causes, in one line; what an error says of its cause already is not said twice.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named() {
        for good in ["debug", "info,podium_storage=debug", ""] {
            assert!(filter(&[("RUST_LOG", good)], SERVERS_LOG).is_ok(), "{good}");
        }
        for bad in ["podium_storage=loud", "info,=,=", "[x"] {
            let error = filter(&[("RUST_LOG", bad)], SERVERS_LOG).unwrap_err();
            assert!(error.to_string().starts_with("RUST_LOG must be"), "{bad}");
        }
    }
}
