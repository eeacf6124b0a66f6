//! What does the work: the request it gets, and how it fails.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::code::Code;
use super::payload::Payload;
use super::responder::Responder;
use crate::id::{Directive, NodeId};
use crate::mesh::report::log::LogLimits;

/// A call as its handler gets it.
#[derive(Debug)]
pub struct Request {
    /// Who calls: the name in the caller's certificate.
    pub caller: NodeId,
    /// The id that the caller gave the call. Unique as far as the caller keeps it so.
    pub id: Uuid,
    /// What is asked for.
    pub directive: Directive,
    /// What the call carries.
    pub payload: Payload,
    pub(super) deadline: Option<Instant>,
    pub(super) logs: LogLimits,
}

impl Request {
    /// How long the call may still take; `None` without a deadline. When it is over, the handler is
    /// dropped.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// Why a handler failed. The caller gets the text, as it is.
///
/// `?` converts whatever converts to a boxed [`Error`]: any error that is `Send` and `Sync`, a
/// boxed one, `anyhow::Error`, and text. The text of the result includes those of the error's
/// sources. For these conversions to exist, `HandlerError` does not implement `Error` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerError {
    pub(super) code: Code,
    pub(super) text: String,
}

impl HandlerError {
    /// A failure that says `text` to the caller.
    ///
    /// The text is cut after [`MAX_ERROR_TEXT`](super::MAX_ERROR_TEXT) bytes.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { code: Code::Failed, text: text.into() }
    }

    pub(super) fn with_code(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'a, E: Into<Box<dyn Error + Send + Sync + 'a>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error = error.into();
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Errors that are transparent, or that name their source themselves, would say it
            // twice.
            if !text.ends_with(&cause_text) {
                write!(text, ": {cause_text}").expect("a String takes any text");
            }
            source = cause.source();
        }
        Self::new(text)
    }
}

/// A handler as the registry keeps it.
pub(super) trait Handler: Send + Sync {
    fn start(&self, request: Request, responder: Responder) -> HandlerFuture;
}

/// A handler at work.
pub(super) type HandlerFuture = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

impl<F, Fut> Handler for F
where
    F: Fn(Request, Responder) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    fn start(&self, request: Request, responder: Responder) -> HandlerFuture {
        Box::pin(self(request, responder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_a_handler_error_with_its_sources_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("the file cannot be read")]
        struct Outer(#[source] std::io::Error);

        fn fails() -> Result<(), HandlerError> {
            Err(Outer(std::io::Error::other("no such disk")))?;
            Ok(())
        }

        assert_eq!(fails(), Err(HandlerError::new("the file cannot be read: no such disk")));
        assert_eq!(HandlerError::from(std::io::Error::other("plain")).to_string(), "plain");
    }

    #[test]
    fn what_converts_to_a_boxed_error_becomes_a_handler_error() {
        /// Converts to a boxed error without being an error itself, like `anyhow::Error`.
        struct Report(Box<dyn Error + Send + Sync>);

        impl From<Report> for Box<dyn Error + Send + Sync> {
            fn from(report: Report) -> Self {
                report.0
            }
        }

        fn converted<E>(error: E) -> HandlerError
        where
            HandlerError: From<E>,
        {
            let fails = || -> Result<(), HandlerError> { Ok(Err(error)?) };
            fails().expect_err("it fails")
        }

        /// Errors of parsers borrow their input.
        #[derive(Debug, thiserror::Error)]
        #[error("unexpected {0}")]
        struct Borrowed<'a>(&'a str);

        let input = String::from("end");
        assert_eq!(converted(Borrowed(&input)), HandlerError::new("unexpected end"));
        let report = || Report(std::io::Error::other("no such disk").into());
        assert_eq!(converted(report()), HandlerError::new("no such disk"));
        assert_eq!(converted(report().0), HandlerError::new("no such disk"));
        assert_eq!(converted("no disk"), HandlerError::new("no disk"));
        assert_eq!(converted(String::from("no disk")), HandlerError::new("no disk"));
        let failed = HandlerError::new("unchanged");
        assert_eq!(converted(failed.clone()), failed);
    }
}
