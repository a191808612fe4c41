//! Tables with typed IDs, as persistent maps: cloning one is cheap, and a clone is not changed by what
//! happens to the original. See Note [Rollback].

use std::fmt::Debug;

use im::{OrdMap, OrdSet};

/// A table in which we choose the IDs: questions, exports, embargoes. Lowest free ID first.
#[derive(Clone)]
pub(crate) struct Allocated<K: Ord + Clone, V: Clone> {
    entries: OrdMap<K, V>,
    /// IDs below `next` that are free.
    free: OrdSet<u32>,
    next: u32,
}

impl<K: Copy + Ord + Debug + From<u32> + Into<u32>, V: Clone> Allocated<K, V> {
    pub(crate) fn new() -> Self {
        Allocated { entries: OrdMap::new(), free: OrdSet::new(), next: 0 }
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
        self.entries.iter().map(|(k, v)| (*k, v))
    }

    /// Takes all entries out.
    pub(crate) fn clear(&mut self) -> OrdMap<K, V> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::QuestionId;

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
