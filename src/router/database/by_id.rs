//! A map by node id: hashed look-ups, walks in the order of the names, and a dense number for each
//! id.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ops::{Bound, Index, IndexMut};

use crate::id::NodeId;

/// A map by node id.
///
/// Comparing names is what a tree of them spends its time on, for each lies elsewhere in memory; so
/// look-ups hash. Walks are ascending. Each id has a number while it is in the map, below
/// [`bound`](Self::bound); numbers of ids that were removed are used again. They depend on history:
/// nothing that leaves the router may depend on them.
///
/// A look-up takes one hash of a name; an id that comes or goes moves four bytes for each that
/// follows it.
#[derive(Debug)]
pub(crate) struct ById<T> {
    // The hasher is a fixed one: outputs must not depend on ambient randomness. Nothing walks along
    // this map.
    numbers: HashMap<NodeId, u32, BuildHasherDefault<DefaultHasher>>,
    slots: Vec<Option<(NodeId, T)>>,
    free: Vec<u32>,
    /// All numbers in use, ascending by id.
    order: Vec<u32>,
}

impl<T> Default for ById<T> {
    fn default() -> Self {
        Self { numbers: HashMap::default(), slots: Vec::new(), free: Vec::new(), order: Vec::new() }
    }
}

impl<T> ById<T> {
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// One more than the largest number.
    pub(crate) fn bound(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn number(&self, id: &NodeId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    /// The id with this number, which must be in use.
    pub(crate) fn id(&self, number: u32) -> &NodeId {
        &self.slot(number).0
    }

    /// Puts a value in, in the place of the one that was there.
    pub(crate) fn insert(&mut self, id: NodeId, value: T) -> u32 {
        if let Some(number) = self.number(&id) {
            self[number] = value;
            return number;
        }
        let at = self.position(&id);
        let slot = Some((id.clone(), value));
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("the number of origins is bounded")
            }
        };
        self.order.insert(at, number);
        self.numbers.insert(id, number);
        number
    }

    pub(crate) fn remove(&mut self, id: &NodeId) -> Option<T> {
        let number = self.numbers.remove(id)?;
        self.order.remove(self.position(id));
        self.free.push(number);
        self.slots[number as usize].take().map(|(_, value)| value)
    }

    /// The numbers from `start` on, ascending by id.
    pub(crate) fn numbers_from(&self, start: Bound<&NodeId>) -> impl Iterator<Item = u32> {
        let at = match start {
            Bound::Unbounded => 0,
            Bound::Included(id) => self.position(id),
            Bound::Excluded(id) => self.order.partition_point(|&number| self.id(number) <= id),
        };
        self.order[at..].iter().copied()
    }

    /// Names and numbers, ascending by name.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (&NodeId, u32)> {
        self.order.iter().map(|&number| (self.id(number), number))
    }

    /// What there is by number, from 0 to the [`bound`](Self::bound).
    pub(crate) fn slots(&self) -> impl Iterator<Item = Option<&T>> {
        self.slots.iter().map(|slot| slot.as_ref().map(|(_, value)| value))
    }

    /// Where in the order of names an id stands, or would.
    fn position(&self, id: &NodeId) -> usize {
        self.order.partition_point(|&number| self.id(number) < id)
    }

    fn slot(&self, number: u32) -> &(NodeId, T) {
        self.slots[number as usize].as_ref().expect("only numbers in use are asked for")
    }
}

impl<T> Index<u32> for ById<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.slot(number).1
    }
}

impl<T> IndexMut<u32> for ById<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.slots[number as usize].as_mut().expect("only numbers in use are asked for").1
    }
}
