//! Findings: one line each, with advice.

use serde::Serialize;

use crate::cli::output::text::{Colour, Paint, escape};

/// Severity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// The node works, and could do better or soon will not.
    Warn,
    /// It keeps the node from working.
    Fail,
}

/// The result of one check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    /// The check.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    /// The result.
    pub(super) text: String,
    /// Advice; `None` if the check passed.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, text: text.into(), advice: None }
    }

    pub(super) fn warn(
        check: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { check, verdict: Verdict::Warn, text: text.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fail(
        check: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { check, verdict: Verdict::Fail, text: text.into(), advice: Some(advice.into()) }
    }
}

/// The findings for people, a line each.
pub(super) fn render(findings: &[Finding], paint: Paint) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let line = |finding: &Finding| {
        let (word, colour) = match finding.verdict {
            Verdict::Ok => ("ok  ", Colour::Green),
            Verdict::Warn => ("warn", Colour::Yellow),
            Verdict::Fail => ("FAIL", Colour::Red),
        };
        let advice = finding
            .advice
            .as_ref()
            .map(|advice| format!("; {}", escape(advice)))
            .unwrap_or_default();
        format!(
            "{}  {:width$}  {}{advice}\n",
            paint.paint(colour, word),
            finding.check,
            escape(&finding.text)
        )
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_that_says_what_to_do() {
        let findings = [
            Finding::ok("clock", "right"),
            Finding::fail("certificate", "it has\nexpired", "issue a new one"),
        ];
        assert_eq!(
            render(&findings, Paint::off()),
            "ok    clock        right\nFAIL  certificate  it has\\nexpired; issue a new one\n"
        );
    }
}
