//! Logging to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum LogFormat {
    /// One line of text an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("a log format is `text` or `json`"),
        }
    }
}

/// Logs what `RUST_LOG` asks for; without it, what users of a node feel.
pub(super) fn init(format: LogFormat) {
    start(format, "info");
}

/// Logs what `RUST_LOG` asks for; without it, only what stops the process: commands say the rest themselves.
pub(super) fn init_quiet() {
    start(LogFormat::Text, "off");
}

fn start(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let ansi =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(ansi)
        // If standard error is gone, complaining about it there would panic.
        .log_internal_errors(false);
    // Somebody else's subscriber may be there already: then that one logs.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
