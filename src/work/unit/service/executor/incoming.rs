//! The units that this node executes.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::holdings::Holdings;
use super::in_unit::{InHome, InUnit};
use crate::sync::lock;
use crate::work::unit::api::UnitStatus;
use crate::work::unit::key::UnitKey;
use crate::work::unit::machine::queue::StartQueue;
use crate::work::unit::service::deadlines::Deadlines;
use crate::work::unit::service::files::growth::Growth;
use crate::work::unit::service::streams::followers::Followers;
use crate::work::unit::service::unit_table::{Held, PAGE, UnitTable};

/// The units that this node executes.
#[derive(Debug)]
pub(in crate::work::unit::service) struct Incoming {
    table: Mutex<Table>,
    /// What was claimed may be free.
    pub(in crate::work::unit::service) freed: Notify,
    /// A unit may be kept in little memory from now on.
    pub(in crate::work::unit::service) retired: Notify,
    pub(in crate::work::unit::service) deadlines: Deadlines<UnitKey>,
    pub(in crate::work::unit::service) followers: Followers,
    pub(in crate::work::unit::service) growth: Growth,
    queue: Mutex<StartQueue>,
}

#[derive(Debug)]
pub(in crate::work::unit::service) struct Table {
    pub(in crate::work::unit::service) units: UnitTable<InUnit>,
    pub(in crate::work::unit::service) holdings: Holdings,
    /// Keys of which something is being made.
    pub(in crate::work::unit::service) claimed: BTreeSet<UnitKey>,
}

impl Incoming {
    pub(in crate::work::unit::service) fn new(home: InHome) -> Self {
        Self {
            table: Mutex::new(Table {
                units: UnitTable::new(home),
                holdings: Holdings::default(),
                claimed: BTreeSet::new(),
            }),
            freed: Notify::new(),
            retired: Notify::new(),
            deadlines: Deadlines::default(),
            followers: Followers::default(),
            growth: Growth::default(),
            queue: Mutex::default(),
        }
    }

    pub(in crate::work::unit::service) fn get(&self, key: &UnitKey) -> Option<Arc<InUnit>> {
        let unit = self.table().units.get(key)?;
        if unit.is_final() {
            self.retired.notify_one();
        }
        Some(unit)
    }

    /// Those that are wanted, in the order of their keys. The table is unlocked now and then.
    pub(in crate::work::unit::service) fn list(
        &self,
        wanted: impl Fn(&UnitStatus) -> bool,
    ) -> Vec<UnitStatus> {
        let mut found = Vec::new();
        let mut behind = Bound::Unbounded;
        loop {
            let table = self.table();
            let home = table.units.home();
            let mut last = None;
            for (key, held) in table.units.behind(behind.as_ref()).take(PAGE) {
                last = Some(key.clone());
                let status = match held {
                    Held::Live(unit) => unit.status(&home.node),
                    Held::Ended(ended) => ended.status(home, key),
                };
                found.extend(Some(status).filter(&wanted));
            }
            let Some(last) = last else { return found };
            behind = Bound::Excluded(last);
        }
    }

    /// Replaces ended units that are not in use by compact records. Returns how many were replaced,
    /// and how many are left for later.
    pub(in crate::work::unit::service) async fn sweep(&self) -> (usize, usize) {
        let (mut replaced, mut behind) = (0, Bound::Unbounded);
        loop {
            let swept = self.table().units.sweep(behind.as_ref());
            replaced += swept.replaced;
            let Some(last) = swept.last else { return (replaced, swept.left) };
            behind = Bound::Excluded(last);
            // There may be many of them.
            tokio::task::yield_now().await;
        }
    }

    pub(in crate::work::unit::service) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub(in crate::work::unit::service) fn queue(&self) -> MutexGuard<'_, StartQueue> {
        lock(&self.queue)
    }
}
