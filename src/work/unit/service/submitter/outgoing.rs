//! The units that this node has submitted.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use uuid::Uuid;

use super::out_unit::{EndedOut, OutHome, OutUnit};
use crate::sync::lock;
use crate::work::unit::api::UnitStatus;
use crate::work::unit::service::deadlines::Deadlines;
use crate::work::unit::service::unit_table::{Held, PAGE, UnitTable};

/// The units that this node has submitted.
#[derive(Debug)]
pub(in crate::work::unit::service) struct Outgoing {
    table: Mutex<Table>,
    /// A submission has ended.
    pub(in crate::work::unit::service) submitted: Notify,
    /// A unit may be kept in little memory from now on.
    pub(in crate::work::unit::service) retired: Notify,
    pub(in crate::work::unit::service) deadlines: Deadlines<Uuid>,
}

#[derive(Debug)]
pub(in crate::work::unit::service) struct Table {
    pub(in crate::work::unit::service) units: UnitTable<OutUnit>,
    /// Those that are being written.
    pub(in crate::work::unit::service) submitting: BTreeSet<Uuid>,
}

impl Outgoing {
    pub(in crate::work::unit::service) fn new(home: OutHome) -> Self {
        Self {
            table: Mutex::new(Table { units: UnitTable::new(home), submitting: BTreeSet::new() }),
            submitted: Notify::new(),
            retired: Notify::new(),
            deadlines: Deadlines::default(),
        }
    }

    pub(in crate::work::unit::service) fn insert(&self, unit: &Arc<OutUnit>) {
        self.table().units.insert(unit.id, unit.clone());
    }

    /// Adds a unit that has ended.
    pub(in crate::work::unit::service) fn insert_ended(&self, id: Uuid, ended: Box<EndedOut>) {
        self.table().units.insert_ended(id, ended);
    }

    pub(in crate::work::unit::service) fn get(&self, id: Uuid) -> Option<Arc<OutUnit>> {
        let unit = self.table().units.get(&id)?;
        if unit.is(UnitStatus::is_final) {
            self.retired.notify_one();
        }
        Some(unit)
    }

    /// Those that are wanted, in the order of their ids. The table is unlocked now and then.
    pub(in crate::work::unit::service) fn list(
        &self,
        wanted: impl Fn(&UnitStatus) -> bool,
    ) -> Vec<UnitStatus> {
        let mut found = Vec::new();
        let mut behind = Bound::Unbounded;
        loop {
            let table = self.table();
            let mut last = None;
            for (id, held) in table.units.behind(behind.as_ref()).take(PAGE) {
                last = Some(*id);
                match held {
                    Held::Live(unit) if unit.is(&wanted) => found.push(unit.status()),
                    Held::Live(_) => {}
                    Held::Ended(ended) => {
                        found.extend(Some(ended.status(table.units.home(), *id)).filter(&wanted));
                    }
                }
            }
            let Some(last) = last else { return found };
            behind = Bound::Excluded(last);
        }
    }

    /// The ids of all of them, in order.
    pub(in crate::work::unit::service) fn ids(&self) -> Vec<Uuid> {
        self.table().units.behind(Bound::Unbounded).map(|(id, _)| *id).collect()
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
}
