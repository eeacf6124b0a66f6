//! `receptor send`: work for a node.

use std::ffi::OsString;
use std::io::Seek as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tokio::io::AsyncRead;

use super::args::SendArgs;
use super::place::Place;
use crate::cli::output::flow::{ReadFrom, WriteTo};
use crate::cli::output::progress::Progress;
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::work::CallOptions;

/// Makes a call: streams the payload out, and the responses to standard output.
pub(super) async fn run(args: SendArgs, env: &Env) -> Result<(), Failure> {
    // Opened first, so that a missing file is reported before joining a mesh.
    let (payload, size) = Payload::parse(args.payload).open().await?;
    let progress = Progress::new(size, args.quiet);
    let responses = WriteTo::stdout(args.raw);
    let options = CallOptions { deadline: args.timeout, peer_timeout: args.peer_timeout };
    Place::with(args.place, env, async |place| {
        let (payload, responses) = (progress.sending(payload), progress.receiving(responses));
        let call = place
            .send(&args.node, args.directive, options, payload, responses, || progress.queued());
        tokio::select! {
            result = call => result,
            never = progress.show() => never,
        }
    })
    .await
}

/// The parsed payload argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Payload {
    Text(Vec<u8>),
    Stdin,
    File(PathBuf),
}

impl Payload {
    pub(super) fn parse(argument: Option<OsString>) -> Self {
        let argument = argument.unwrap_or_default();
        match argument.as_bytes() {
            b"-" => Self::Stdin,
            [b'@', path @ ..] => {
                Self::File(Path::new(std::ffi::OsStr::from_bytes(path)).to_owned())
            }
            _ => Self::Text(argument.into_vec()),
        }
    }

    /// Opens it, and returns its length if that is known.
    pub(super) async fn open(
        self,
    ) -> Result<(ReadFrom<Pin<Box<dyn AsyncRead + Send>>>, Option<u64>), Failure> {
        let (from, name, size): (Pin<Box<dyn AsyncRead + Send>>, _, _) = match self {
            Self::Text(text) => {
                let size = text.len() as u64;
                (Box::pin(std::io::Cursor::new(text)), "the payload".to_owned(), Some(size))
            }
            Self::Stdin => {
                (Box::pin(tokio::io::stdin()), "standard input".to_owned(), rest_of_stdin())
            }
            Self::File(path) => {
                let name = path.display().to_string();
                let open = async {
                    let file = tokio::fs::File::open(&path).await?;
                    let found = file.metadata().await?;
                    std::io::Result::Ok((file, found.is_file().then_some(found.len())))
                };
                let (file, size) =
                    open.await.map_err(|error| Failure::usage(format!("{name}: {error}")))?;
                (Box::pin(file), name, size)
            }
        };
        Ok((ReadFrom { from, name }, size))
    }
}

/// Remaining length of a regular file on standard input.
fn rest_of_stdin() -> Option<u64> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    let mut file = std::fs::File::from(stdin);
    let found = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    // The duplicate shares its position with standard input.
    Some(found.len().saturating_sub(file.stream_position().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_a_text_standard_input_or_a_file() {
        let parse = |text: &str| Payload::parse(Some(text.into()));
        assert_eq!(parse("hello"), Payload::Text(b"hello".to_vec()));
        assert_eq!(parse("-"), Payload::Stdin);
        assert_eq!(parse("-5"), Payload::Text(b"-5".to_vec()));
        assert_eq!(parse("@a/b"), Payload::File("a/b".into()));
        assert_eq!(Payload::parse(None), Payload::Text(Vec::new()));
    }
}
