//! The units that this node has submitted.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use uuid::Uuid;

use super::super::api::UnitStatus;
use super::deadlines::Deadlines;
use super::out_unit::{EndedOut, OutHome, OutUnit};
use super::unit_table::{Held, PAGE, UnitTable};
use crate::sync::lock;

/// The units that this node has submitted.
#[derive(Debug)]
pub(super) struct Outgoing {
    table: Mutex<Table>,
    /// A submission has ended.
    pub(super) submitted: Notify,
    /// A unit may be kept in little memory from now on.
    pub(super) retired: Notify,
    pub(super) deadlines: Deadlines<Uuid>,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) units: UnitTable<OutUnit>,
    /// Those that are being written.
    pub(super) submitting: BTreeSet<Uuid>,
}

impl Outgoing {
    pub(super) fn new(home: OutHome) -> Self {
        Self {
            table: Mutex::new(Table { units: UnitTable::new(home), submitting: BTreeSet::new() }),
            submitted: Notify::new(),
            retired: Notify::new(),
            deadlines: Deadlines::default(),
        }
    }

    pub(super) fn insert(&self, unit: &Arc<OutUnit>) {
        self.table().units.insert(unit.id, unit.clone());
    }

    /// Adds a unit that has ended.
    pub(super) fn insert_ended(&self, id: Uuid, ended: Box<EndedOut>) {
        self.table().units.insert_ended(id, ended);
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Arc<OutUnit>> {
        let unit = self.table().units.get(&id)?;
        if unit.is(UnitStatus::is_final) {
            self.retired.notify_one();
        }
        Some(unit)
    }

    /// Those that are wanted, in the order of their ids. The table is unlocked now and then.
    pub(super) fn list(&self, wanted: impl Fn(&UnitStatus) -> bool) -> Vec<UnitStatus> {
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
    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.table().units.behind(Bound::Unbounded).map(|(id, _)| *id).collect()
    }

    /// Replaces ended units that are not in use by compact records. Returns how many were replaced,
    /// and how many are left for later.
    pub(super) async fn sweep(&self) -> (usize, usize) {
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

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}
