//! Requests about units.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::BufReader;
use uuid::Uuid;

use super::super::protocol::{Request, read_chunk};
use super::{Client, upload};
use crate::cli::output::flow::{Sink, Source};
use crate::cli::process::exit::{Exit, Failure};
use crate::cli::work::id::IdPrefix;
use crate::cli::work::request::{Released, ResultsRequest, SubmitRequest, UnitQuery, UnitRequest};
use crate::cli::work::unit::UnitView;
use crate::work::unit::QuarantinedUnit;

impl Client {
    /// Submits a unit, and returns its status once it is on disk.
    ///
    /// Dropped before that, it submits nothing, or the whole unit. Submitting it again with the
    /// same key is harmless.
    pub(in crate::cli) async fn submit(
        &self,
        request: SubmitRequest,
        mut payload: impl Source,
    ) -> Result<UnitView, Failure> {
        let mut stream = self.connect().await?;
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        let key = request.key;
        let request = Request::Unit(UnitRequest::Submit(request));
        // Until the node has answered this, it has got no payload, and stores nothing.
        self.request::<Value>(&mut write, &mut read, &request, || {}).await?;
        // A node that rejects the unit answers before the payload has ended.
        let answer = self.answer(&mut read, || {});
        let upload = async {
            match upload(&mut payload, &mut write).await {
                Ok(()) => std::future::pending().await,
                Err(failure) => failure,
            }
        };
        let submitted = tokio::select! {
            answer = answer => answer,
            failure = upload => Err(failure),
        };
        submitted.map_err(|failure| uncertain(failure, key))
    }

    pub(in crate::cli) async fn units(&self, filter: UnitQuery) -> Result<Vec<UnitView>, Failure> {
        self.unit(UnitRequest::List { filter }).await
    }

    pub(in crate::cli) async fn quarantined_units(&self) -> Result<Vec<QuarantinedUnit>, Failure> {
        self.unit(UnitRequest::Quarantined {}).await
    }

    pub(in crate::cli) async fn unit_status(&self, id: &IdPrefix) -> Result<UnitView, Failure> {
        self.unit(UnitRequest::Status { id: id.clone() }).await
    }

    /// Reports each status of a unit, and returns the final one.
    pub(in crate::cli) async fn watch_unit(
        &self,
        id: &IdPrefix,
        mut changed: impl FnMut(&UnitView),
    ) -> Result<UnitView, Failure> {
        let mut stream = self.connect().await?;
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        let request = Request::Unit(UnitRequest::Watch { id: id.clone() });
        let mut unit: UnitView = self.request(&mut write, &mut read, &request, || {}).await?;
        loop {
            if unit.state.is_final() {
                return Ok(unit);
            }
            changed(&unit);
            unit = self.answer(&mut read, || {}).await?;
        }
    }

    /// Delivers output of a unit, and returns the unit's status at the end of it. `request.from` is
    /// moved on by what was delivered.
    pub(in crate::cli) async fn results(
        &self,
        request: &mut ResultsRequest,
        output: &mut impl Sink,
    ) -> Result<UnitView, Failure> {
        let mut stream = self.connect().await?;
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        let line = Request::Unit(UnitRequest::Results(request.clone()));
        self.request::<Value>(&mut write, &mut read, &line, || {}).await?;
        while let Some(chunk) = read_chunk(&mut read).await.map_err(|error| self.lost(&error))? {
            let len = chunk.len() as u64;
            output.put(chunk).await?;
            request.from += len;
        }
        self.answer(&mut read, || {}).await
    }

    pub(in crate::cli) async fn cancel_unit(
        &self,
        id: &IdPrefix,
        grace_ms: u64,
    ) -> Result<UnitView, Failure> {
        self.unit(UnitRequest::Cancel { id: id.clone(), grace_ms }).await
    }

    pub(in crate::cli) async fn release_unit(
        &self,
        id: &IdPrefix,
        force: bool,
    ) -> Result<Released, Failure> {
        self.unit(UnitRequest::Release { id: id.clone(), force }).await
    }

    pub(in crate::cli) async fn release_units(
        &self,
        filter: UnitQuery,
        force: bool,
    ) -> Result<Released, Failure> {
        self.unit(UnitRequest::ReleaseAll { filter, force }).await
    }

    async fn unit<T: DeserializeOwned>(&self, request: UnitRequest) -> Result<T, Failure> {
        self.ask(&Request::Unit(request)).await
    }
}

/// A connection that was lost leaves open whether the unit was stored.
fn uncertain(failure: Failure, key: Uuid) -> Failure {
    if failure.exit != Exit::Unreachable {
        return failure;
    }
    let text = format!(
        "{}; if the unit was submitted, its id is {key}, and submitting it again with --key {key} is harmless",
        failure.text
    );
    Failure { text, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lost_connection_leaves_the_submission_open() {
        let key = Uuid::from_u128(7);
        let lost = uncertain(Failure::unreachable("lost the node"), key);
        assert_eq!(lost.exit, Exit::Unreachable);
        assert!(lost.text.starts_with("lost the node; if the unit was submitted"), "{lost}");
        assert!(lost.text.contains(&format!("--key {key}")), "{lost}");
        let conflict = Failure::usage("the key belongs to another unit");
        assert_eq!(uncertain(conflict.clone(), key), conflict);
    }
}
