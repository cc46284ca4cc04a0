//! Exit codes, and the errors that choose one. What is not one of these is an ordinary failure.

use crate::output::Output;
use std::process::ExitCode;

/// Something did not work.
const FAILURE: u8 = 1;
/// What was given is wrong in itself: a policy, a schema, a configuration, a key.
const REFUSED: u8 = 3;
/// A capability or permission is missing.
const PRIVILEGE: u8 = 4;

/// The table in `tollfree --help`; 2 is clap's.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage: unknown command, option or value
  3  refused input: an error in a policy, schema, configuration file or table entry; nothing was changed
  4  missing privilege: the message says which; the udp backend needs none";

/// Marks an error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// The input is at fault; the text may span lines and is shown as it is.
    #[error("{0}")]
    Refused(String),
    /// The caller may not; the text says what is missing.
    #[error("{0}")]
    Privilege(String),
    /// Everything has been said on the standard output; nothing is added.
    #[error("failed")]
    Reported,
    /// As `Reported`, for refused input.
    #[error("refused")]
    ReportedRefused,
}

/// Shorthand for an error about the input.
pub fn refused(error: impl std::fmt::Display) -> anyhow::Error {
    Exit::Refused(error.to_string()).into()
}

/// Prints an error, to people or as JSON on the standard output, and chooses the exit code.
pub fn report(error: &anyhow::Error, output: Output) -> ExitCode {
    let (code, silent) = match error.downcast_ref::<Exit>() {
        Some(Exit::Refused(_)) => (REFUSED, false),
        Some(Exit::Privilege(_)) => (PRIVILEGE, false),
        Some(Exit::Reported) => (FAILURE, true),
        Some(Exit::ReportedRefused) => (REFUSED, true),
        None if lacks_permission(error) => (PRIVILEGE, false),
        None => (FAILURE, false),
    };
    if !silent && output.is_json() {
        let kind = match code {
            REFUSED => "refused",
            PRIVILEGE => "privilege",
            _ => "failed",
        };
        let report = serde_json::json!({ "ok": false, "kind": kind, "error": flatten(error) });
        // Where nobody reads the standard output there is nobody to tell.
        let _ = output.json(&report);
    } else if !silent {
        let text = flatten(error);
        // Diagnostics with a caret bring their own "Error:" headline.
        if text.contains('\n') { eprintln!("{}", text.trim_end()) } else { eprintln!("error: {text}") }
    }
    ExitCode::from(code)
}

fn lacks_permission(error: &anyhow::Error) -> bool {
    let denied = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::PermissionDenied;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(denied))
}

/// The chain of causes as one sentence; a cause that its parent quotes already is not said twice.
pub fn flatten(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{}: {cause}", text.trim_end_matches('.'));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_join_and_are_not_repeated() {
        let inner: Result<(), _> = Err(std::io::Error::other("no such file"));
        let error = inner.context("cannot read x: no such file").context("cannot start").unwrap_err();
        assert_eq!(flatten(&error), "cannot start: cannot read x: no such file");
    }

    #[test]
    fn context_keeps_the_exit_code() {
        let error = refused("bad").context("while checking");
        assert!(matches!(error.downcast_ref(), Some(Exit::Refused(_))));
    }
}
