//! Sets of IDs.

use std::collections::BTreeSet;

const BITS: u32 = u64::BITS;

/// The IDs in use. Finds the lowest free one.
///
/// A bit of `levels[0]` says that an ID is in use, and a bit of each further level that a word of the level below
/// is full. The last level is a single word with room, or empty.
#[derive(Default)]
pub(super) struct Ids {
    levels: Vec<Vec<u64>>,
    len: usize,
}

impl Ids {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        let word = self.levels.first().and_then(|words| words.get((id / BITS) as usize));
        word.is_some_and(|word| word & bit(id) != 0)
    }

    /// Takes the lowest ID that is free.
    pub(super) fn take_lowest(&mut self) -> u32 {
        if self.levels.last().is_none_or(|top| top[0] == u64::MAX) {
            let full = u64::from(!self.levels.is_empty());
            self.levels.push(vec![full]);
        }
        let mut id = 0;
        for level in (0..self.levels.len()).rev() {
            let words = &mut self.levels[level];
            if words.len() <= id as usize {
                words.resize(id as usize + 1, 0);
            }
            id = id * BITS + words[id as usize].trailing_ones();
        }
        self.len += 1;
        let mut at = id;
        for words in &mut self.levels {
            let word = &mut words[(at / BITS) as usize];
            *word |= bit(at);
            if *word != u64::MAX {
                break;
            }
            at /= BITS;
        }
        id
    }

    /// Frees an ID that is in use.
    pub(super) fn free(&mut self, id: u32) {
        debug_assert!(self.contains(id), "an ID that is freed was in use");
        self.len -= 1;
        let mut at = id;
        for words in &mut self.levels {
            let word = &mut words[(at / BITS) as usize];
            let was_full = *word == u64::MAX;
            *word &= !bit(at);
            if !was_full {
                break;
            }
            at /= BITS;
        }
    }
}

fn bit(id: u32) -> u64 {
    1 << (id % BITS)
}

/// A set of IDs that the peer chooses, of limited size. An ID below `MANY` takes one bit. Of the other IDs at most `MANY`
/// are in the set: if one more is inserted, the lowest of them is forgotten.
#[derive(Default)]
pub(crate) struct RetiredIds {
    low: Vec<u64>,
    high: BTreeSet<u32>,
    /// Whether an ID has been forgotten.
    forgetful: bool,
}

/// A peer that uses the lowest free ID has fewer outstanding. Without a limit, a peer that uses each ID once would have all of
/// them remembered.
const MANY: u32 = 1 << 16;

impl RetiredIds {
    pub(crate) fn contains(&self, id: u32) -> bool {
        match id < MANY {
            true => self.low.get((id / BITS) as usize).is_some_and(|word| word & bit(id) != 0),
            false => self.high.contains(&id),
        }
    }

    /// Whether this ID is in the set, or may have been forgotten.
    pub(crate) fn may_contain(&self, id: u32) -> bool {
        self.contains(id) || (self.forgetful && id >= MANY)
    }

    pub(crate) fn insert(&mut self, id: u32) {
        if id < MANY {
            let at = (id / BITS) as usize;
            if self.low.len() <= at {
                self.low.resize(at + 1, 0);
            }
            self.low[at] |= bit(id);
            return;
        }
        if self.high.len() >= MANY as usize {
            self.high.pop_first();
            self.forgetful = true;
        }
        self.high.insert(id);
    }

    /// Takes an ID out. Returns whether it was in the set.
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        match self.low.get_mut((id / BITS) as usize) {
            Some(word) => {
                let was = *word & bit(id) != 0;
                *word &= !bit(id);
                was
            }
            None => self.high.remove(&id),
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = RetiredIds::default();
    }

    /// The number of IDs in the set.
    pub(crate) fn len(&self) -> usize {
        let low: usize = self.low.iter().map(|word| word.count_ones() as usize).sum();
        low + self.high.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_id_is_found_at_every_depth() {
        let mut ids = Ids::default();
        for n in 0..10_000 {
            assert_eq!(ids.take_lowest(), n);
        }
        for free in [9_999, 0, 63, 64, 4_095, 4_096, 8_191] {
            ids.free(free);
            assert!(!ids.contains(free));
        }
        for lowest in [0, 63, 64, 4_095, 4_096, 8_191, 9_999, 10_000] {
            assert_eq!(ids.take_lowest(), lowest);
        }
        assert_eq!(ids.len(), 10_001);
        (0..10_001).for_each(|id| ids.free(id));
        assert_eq!((ids.len(), ids.take_lowest()), (0, 0));
    }

    #[test]
    fn a_limited_number_of_high_ids_is_remembered() {
        let mut ids = RetiredIds::default();
        for id in (0..10).chain(MANY..2 * MANY) {
            ids.insert(id);
        }
        assert!(!ids.may_contain(u32::MAX));
        ids.insert(u32::MAX);
        assert!(ids.contains(3) && ids.contains(MANY + 1) && ids.contains(u32::MAX));
        assert!(!ids.contains(MANY), "the lowest of the high ones is forgotten");
        assert!(ids.may_contain(MANY) && !ids.may_contain(50_000), "low ones are never forgotten");
        assert!(ids.remove(3) && !ids.remove(3) && !ids.remove(50_000));
        assert!(ids.remove(u32::MAX) && !ids.remove(u32::MAX));
        assert_eq!(ids.len(), 9 + MANY as usize - 1);
        ids.clear();
        assert_eq!(ids.len(), 0);
    }
}
