//! `receptor send`: work for a node.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tokio::io::AsyncRead;

use super::args::SendArgs;
use super::env::Env;
use super::exit::Failure;
use super::flow::{ReadFrom, WriteTo};
use super::place::Place;

/// Makes a call: the payload out, the responses to standard output as they come.
pub(super) async fn run(args: SendArgs, env: &Env) -> Result<(), Failure> {
    // Opened first: a file that is not there is no reason to join a mesh.
    let payload = Payload::parse(args.payload).open().await?;
    Place::with(args.place, env, async |place| {
        place.send(&args.node, args.directive, payload, WriteTo(tokio::io::stdout())).await
    })
    .await
}

/// What the payload argument means.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Payload {
    Text(Vec<u8>),
    Stdin,
    File(PathBuf),
}

impl Payload {
    fn parse(argument: Option<OsString>) -> Self {
        let argument = argument.unwrap_or_default();
        match argument.as_bytes() {
            b"-" => Self::Stdin,
            [b'@', path @ ..] => Self::File(Path::new(std::ffi::OsStr::from_bytes(path)).to_owned()),
            _ => Self::Text(argument.into_vec()),
        }
    }

    async fn open(self) -> Result<ReadFrom<Pin<Box<dyn AsyncRead + Send>>>, Failure> {
        let (from, name): (Pin<Box<dyn AsyncRead + Send>>, _) = match self {
            Self::Text(text) => (Box::pin(std::io::Cursor::new(text)), "the payload".to_owned()),
            Self::Stdin => (Box::pin(tokio::io::stdin()), "standard input".to_owned()),
            Self::File(path) => {
                let name = path.display().to_string();
                let file = tokio::fs::File::open(&path).await;
                (Box::pin(file.map_err(|error| Failure::usage(format!("{name}: {error}")))?), name)
            }
        };
        Ok(ReadFrom { from, name })
    }
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
