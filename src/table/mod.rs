//! Tables with typed IDs, as persistent maps: cloning one is cheap, and a clone is not changed by what
//! happens to the original. See Note [Rollback].
//!
//! ```text
//! Note [Entries are shared]
//! =========================
//! The maps of the `im` crate keep 64 entries in a node, and move and copy whole nodes: by value on the stack
//! (several at once for each level of the tree), and whenever a version shares a node with an older one. With
//! entries of some hundred bytes that takes a megabyte of stack for each level in a debug build, so that a table
//! of a few thousand overflows it, and 64 deep copies for each change. So a map holds its entries by reference,
//! and an entry is copied only if an older version has it too and it is changed.
//! ```

use std::fmt::Debug;

use im::{OrdMap, OrdSet};

use crate::sync::Arc;

/// A table in which we choose the IDs: questions, exports, embargoes. Lowest free ID first.
#[derive(Clone)]
pub(crate) struct Allocated<K: Ord + Clone, V: Clone> {
    entries: Given<K, V>,
    /// IDs below `next` that are free.
    free: OrdSet<u32>,
    next: u32,
}

impl<K: Copy + Ord + Debug + From<u32> + Into<u32>, V: Clone> Allocated<K, V> {
    pub(crate) fn new() -> Self {
        Allocated { entries: Given::default(), free: OrdSet::new(), next: 0 }
    }

    /// Puts an entry at the lowest free ID.
    pub(crate) fn insert(&mut self, entry: impl FnOnce(K) -> V) -> K {
        let id = match self.free.get_min().copied() {
            Some(id) => {
                self.free.remove(&id);
                id
            }
            None => {
                let id = self.next;
                self.next += 1;
                id
            }
        };
        let id = K::from(id);
        self.entries.insert(id, entry(id));
        id
    }

    /// Takes an entry out and frees its ID.
    pub(crate) fn remove(&mut self, id: K) -> Option<V> {
        let entry = self.entries.remove(&id)?;
        let id: u32 = id.into();
        if id + 1 == self.next {
            self.next = id;
            while self.next > 0 && self.free.remove(&(self.next - 1)).is_some() {
                self.next -= 1;
            }
        } else {
            self.free.insert(id);
        }
        Some(entry)
    }

    pub(crate) fn get(&self, id: K) -> Option<&V> {
        self.entries.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: K) -> Option<&mut V> {
        self.entries.get_mut(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter()
    }

    /// How often the table has been changed, or an entry of it lent to be changed.
    pub(crate) fn changes(&self) -> u64 {
        self.entries.changes()
    }

    /// Takes all entries out.
    pub(crate) fn clear(&mut self) -> Given<K, V> {
        self.free = OrdSet::new();
        self.next = 0;
        std::mem::take(&mut self.entries)
    }

    /// Panics unless every ID below `next` is either used or free.
    pub(crate) fn check(&self) {
        assert_eq!(self.entries.len() + self.free.len(), self.next as usize, "IDs are used or free");
        assert!(self.free.iter().all(|id| !self.entries.contains_key(&K::from(*id))), "no free ID is used");
    }
}

/// A table in which somebody else chooses the IDs: the peer, or whoever counts them. See Note [Entries are
/// shared].
#[derive(Clone, Debug)]
pub(crate) struct Given<K: Ord + Clone, V: Clone> {
    entries: OrdMap<K, Arc<V>>,
    changes: u64,
}

impl<K: Ord + Clone, V: Clone> Default for Given<K, V> {
    fn default() -> Self {
        Given { entries: OrdMap::new(), changes: 0 }
    }
}

impl<K: Copy + Ord, V: Clone> Given<K, V> {
    pub(crate) fn insert(&mut self, id: K, entry: V) {
        self.changes += 1;
        self.entries.insert(id, Arc::new(entry));
    }

    pub(crate) fn remove(&mut self, id: &K) -> Option<V> {
        let entry = self.entries.remove(id)?;
        self.changes += 1;
        Some(Arc::unwrap_or_clone(entry))
    }

    pub(crate) fn contains_key(&self, id: &K) -> bool {
        self.entries.contains_key(id)
    }

    pub(crate) fn get(&self, id: &K) -> Option<&V> {
        self.entries.get(id).map(|entry| &**entry)
    }

    pub(crate) fn get_mut(&mut self, id: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(id)?;
        self.changes += 1;
        Some(Arc::make_mut(entry))
    }

    pub(crate) fn get_or_insert_with(&mut self, id: K, entry: impl FnOnce() -> V) -> &mut V {
        self.changes += 1;
        Arc::make_mut(self.entries.entry(id).or_insert_with(|| Arc::new(entry())))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How often the table has been changed, or an entry of it lent to be changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter().map(|(id, entry)| (*id, &**entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::QuestionId;

    /// In a debug build, on a thread with the usual stack. See Note [Entries are shared].
    #[test]
    fn large_entries_take_no_deep_stack() {
        let mut t = Allocated::<QuestionId, [u64; 100]>::new();
        let ids: Vec<_> = (0..5000).map(|n| t.insert(|_| [n; 100])).collect();
        let before = t.clone();
        ids.iter().for_each(|id| assert_eq!(t.remove(*id).unwrap()[99], u64::from(id.0)));
        assert_eq!((t.len(), before.len()), (0, 5000));
    }

    #[test]
    fn gives_the_lowest_id_first() {
        let mut t = Allocated::<QuestionId, &str>::new();
        let ids: Vec<_> = ["a", "b", "c"].into_iter().map(|v| t.insert(|_| v).0).collect();
        assert_eq!(ids, [0, 1, 2]);
        let before = t.clone();
        assert_eq!(t.remove(QuestionId(1)), Some("b"));
        assert_eq!(t.remove(QuestionId(1)), None);
        t.check();
        assert_eq!(t.insert(|_| "d"), QuestionId(1));
        assert_eq!(before.get(QuestionId(1)), Some(&"b"));
        for id in 0..3 {
            t.remove(QuestionId(id));
        }
        t.check();
        assert_eq!((t.len(), t.next), (0, 0));
    }
}
