//! `receptor work cancel` and `receptor work release`.

use super::args::{CancelArgs, ReleaseArgs};
use super::list::{millis, query};
use super::request::Released;
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::cli::socket::client;
use crate::cli::work::show::output::print;

pub(super) async fn cancel(args: CancelArgs, env: &Env) -> Result<(), Failure> {
    client(args.socket, env)?.cancel_unit(&args.id, millis(args.grace)).await.map(drop)
}

pub(super) async fn release(args: ReleaseArgs, env: &Env) -> Result<(), Failure> {
    let client = client(args.socket, env)?;
    match &args.id {
        Some(id) => client.release_unit(id, args.force).await.map(drop),
        None => outcome(&client.release_units(query(args.which, false), args.force).await?),
    }
}

fn outcome(released: &Released) -> Result<(), Failure> {
    print(&format!("{} released\n", released.released))?;
    if released.failed == 0 {
        return Ok(());
    }
    let mut text = format!("{} could not be released", released.failed);
    for failure in &released.failures {
        text.push('\n');
        text.push_str(failure);
    }
    Err(Failure::failed(text))
}
