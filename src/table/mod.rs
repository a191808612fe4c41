//! Tables with typed IDs. A clone of the entries is cheap, and is not changed by what happens to the original.
//!
//! ```text
//! Note [Low IDs are dense]
//! ========================
//! A peer that keeps to the protocol uses the lowest free ID, so nearly all entries have low IDs. Those entries stand in
//! pages, side by side (`pages.rs`). The other entries, whose IDs a peer may choose at will, are in an `im::OrdMap`, by
//! reference: a map of `im` keeps 64 entries in a node, and moves and copies whole nodes by value on the stack. With
//! entries of 500 bytes that takes 1 MiB of stack for each level of the map in a debug build. An empty map has a node of 1
//! to 2 KiB, so a table has no map before it needs one.
//!
//! Note [What a clone costs]
//! =========================
//! A clone of `PeerTable` shares the pages and the map's nodes with the original. It takes one reference count for each of the
//! first 64 pages (2,048 entries), one for each further 64 pages, and one for the map: 112 for 100,000 entries.
//!
//! If an entry is changed while a clone exists, its page (32 entries) is copied first, and the list of the 64 pages that the
//! page stands in; or, in the map, the nodes on the way to the entry. Each page is copied once for each clone. `benches/parts`
//! measures that ("100,000 calls: …"): a clone takes 0.8 µs, and a call whose entries stand in shared pages on both sides
//! takes 11 µs instead of 9.5. Without a clone nothing is copied: that is why a transaction keeps no old version (Note
//! [Rollback]).
//!
//! A clone holds all that its entries hold. So it must be dropped where users' objects may be dropped.
//! ```

mod addresses;
mod ids;
mod pages;
mod paths;

use im::OrdMap;

use crate::sync::Arc;
use ids::Ids;
use pages::Pages;

pub(crate) use addresses::ByAddress;
pub(crate) use ids::RetiredIds;
pub(crate) use paths::ByPath;

/// The name of an entry.
pub(crate) trait Key: Copy + Ord {
    fn number(self) -> u64;

    /// The key of this number, which is the number of a key.
    fn of(number: u64) -> Self;
}

impl<T: Copy + Ord + From<u32> + Into<u32>> Key for T {
    fn number(self) -> u64 {
        u64::from(self.into())
    }

    fn of(number: u64) -> Self {
        T::from(number as u32)
    }
}

/// A table whose IDs this vat chooses: questions, exports, embargoes. A new entry gets the lowest free ID.
pub(crate) struct LocalTable<K: Ord + Clone, V: Clone> {
    entries: PeerTable<K, V>,
    ids: Ids,
}

impl<K: Key + From<u32> + Into<u32>, V: Clone> LocalTable<K, V> {
    pub(crate) fn new() -> Self {
        LocalTable { entries: PeerTable::default(), ids: Ids::default() }
    }

    /// Puts an entry at the lowest free ID.
    pub(crate) fn insert(&mut self, entry: impl FnOnce(K) -> V) -> K {
        let id = K::from(self.ids.take_lowest());
        self.entries.insert(id, entry(id));
        id
    }

    /// Takes an entry out and frees its ID.
    pub(crate) fn remove(&mut self, id: K) -> Option<V> {
        let entry = self.entries.remove(&id)?;
        self.ids.free(id.into());
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

    /// The entries, without the IDs that are free.
    pub(crate) fn entries(&self) -> &PeerTable<K, V> {
        &self.entries
    }

    /// The number of changes of the table, and of calls of `get_mut` that have found an entry.
    pub(crate) fn changes(&self) -> u64 {
        self.entries.changes()
    }

    /// Takes all entries out.
    pub(crate) fn clear(&mut self) -> PeerTable<K, V> {
        self.ids = Ids::default();
        self.entries.take()
    }

    /// Panics unless the IDs in use are those of the entries.
    pub(crate) fn check(&self) {
        assert_eq!(self.entries.len(), self.ids.len(), "as many IDs are in use as there are entries");
        assert!(self.iter().all(|(id, _)| self.ids.contains(id.into())), "the ID of an entry is in use");
    }
}

/// A table whose IDs the peer chooses, or another table, or a counter. See Note [Low IDs are dense].
#[derive(Clone)]
pub(crate) struct PeerTable<K: Ord + Clone, V: Clone> {
    low: Pages<V>,
    /// `None` if there are none.
    others: Option<OrdMap<K, Arc<V>>>,
    changes: u64,
}

impl<K: Ord + Clone, V: Clone> Default for PeerTable<K, V> {
    fn default() -> Self {
        PeerTable { low: Pages::default(), others: None, changes: 0 }
    }
}

impl<K: Key, V: Clone> PeerTable<K, V> {
    /// Puts an entry where there is none.
    pub(crate) fn insert(&mut self, id: K, entry: V) {
        debug_assert!(!self.contains_key(&id), "an ID is used once at a time");
        self.changes += 1;
        match self.low.admits(id.number()) {
            true => self.low.insert(id.number(), entry),
            false => {
                self.others.get_or_insert_with(OrdMap::new).insert(id, Arc::new(entry));
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &K) -> Option<V> {
        let entry = match self.low.remove(id.number()) {
            Some(entry) => entry,
            None => Arc::unwrap_or_clone(self.remove_other(id)?),
        };
        self.changes += 1;
        Some(entry)
    }

    fn remove_other(&mut self, id: &K) -> Option<Arc<V>> {
        let others = self.others.as_mut()?;
        let entry = others.remove(id)?;
        if others.is_empty() {
            self.others = None;
        }
        Some(entry)
    }

    pub(crate) fn contains_key(&self, id: &K) -> bool {
        self.get(id).is_some()
    }

    pub(crate) fn get(&self, id: &K) -> Option<&V> {
        match self.low.get(id.number()) {
            None => self.others.as_ref()?.get(id).map(|entry| &**entry),
            found => found,
        }
    }

    pub(crate) fn get_mut(&mut self, id: &K) -> Option<&mut V> {
        let entry = match self.low.get_mut(id.number()) {
            Some(entry) => entry,
            None => self.others.as_mut()?.get_mut(id).map(Arc::make_mut)?,
        };
        self.changes += 1;
        Some(entry)
    }

    pub(crate) fn len(&self) -> usize {
        self.low.len() + self.others.as_ref().map_or(0, OrdMap::len)
    }

    /// The number of changes of the table, and of calls of `get_mut` that have found an entry.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let low = self.low.iter().map(|(id, entry)| (K::of(id), entry));
        low.chain(self.others.iter().flatten().map(|(id, entry)| (*id, &**entry)))
    }

    /// Takes all entries out.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AnswerId, QuestionId};

    /// In a debug build, on a thread with the usual stack. See Note [Low IDs are dense].
    #[test]
    fn large_entries_take_no_deep_stack() {
        let mut t = LocalTable::<QuestionId, [u64; 100]>::new();
        let ids: Vec<_> = (0..5000).map(|n| t.insert(|_| [n; 100])).collect();
        let before = t.entries().clone();
        ids.iter().for_each(|id| assert_eq!(t.remove(*id).unwrap()[99], u64::from(id.0)));
        assert_eq!((t.len(), before.len()), (0, 5000));
    }

    /// The peer may choose any IDs: pages are for dense ones only.
    #[test]
    fn any_id_will_do_and_takes_no_more_than_its_entry() {
        let mut t = PeerTable::<AnswerId, u64>::default();
        let ids: Vec<_> = (0..1000u32).map(|n| n.wrapping_mul(0x9e37_79b9)).chain([u32::MAX]).collect();
        ids.iter().for_each(|id| t.insert(AnswerId(*id), u64::from(*id)));
        assert!(t.low.len() < 10 && t.len() == 1001, "{} of {} in pages", t.low.len(), t.len());
        let before = t.clone();
        ids.iter().for_each(|id| *t.get_mut(&AnswerId(*id)).unwrap() += 1);
        for id in &ids {
            assert_eq!(before.get(&AnswerId(*id)), Some(&u64::from(*id)));
            assert_eq!(t.remove(&AnswerId(*id)), Some(u64::from(*id) + 1));
            assert_eq!(t.remove(&AnswerId(*id)), None);
        }
        assert_eq!((t.len(), t.is_empty(), t.iter().count(), before.iter().count()), (0, true, 0, 1001));
    }

    /// An ID that stands in the map, as it came too soon, is found when the pages have come as far.
    #[test]
    fn pages_grow_past_entries_in_the_map() {
        let mut t = PeerTable::<AnswerId, u32>::default();
        t.insert(AnswerId(5000), 5000);
        assert_eq!((t.low.len(), t.len()), (0, 1));
        (0..10_000).filter(|id| *id != 5000).for_each(|id| t.insert(AnswerId(id), id));
        assert_eq!((t.low.len(), t.len()), (9_999, 10_000));
        let mut all: Vec<u32> = t.iter().map(|(id, entry)| id.0.max(*entry)).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..10_000));
        let changes = t.changes();
        assert!(t.get_mut(&AnswerId(10_000)).is_none() && t.remove(&AnswerId(10_000)).is_none());
        assert_eq!(t.changes(), changes, "nothing was changed");
        (0..10_000).for_each(|id| assert_eq!(t.remove(&AnswerId(id)), Some(id)));
        assert_eq!((t.len(), t.changes()), (0, changes + 10_000));
        assert!(t.others.is_none(), "nothing is kept of an empty map");
    }

    #[test]
    fn gives_the_lowest_id_first() {
        let mut t = LocalTable::<QuestionId, &str>::new();
        let ids: Vec<_> = ["a", "b", "c"].into_iter().map(|v| t.insert(|_| v).0).collect();
        assert_eq!(ids, [0, 1, 2]);
        let before = t.entries().clone();
        assert_eq!(t.remove(QuestionId(1)), Some("b"));
        assert_eq!(t.remove(QuestionId(1)), None);
        t.check();
        assert_eq!(t.insert(|_| "d"), QuestionId(1));
        assert_eq!(before.get(&QuestionId(1)), Some(&"b"));
        for id in 0..3 {
            t.remove(QuestionId(id));
        }
        t.check();
        assert_eq!((t.len(), t.insert(|_| "e").0), (0, 0));
    }
}
