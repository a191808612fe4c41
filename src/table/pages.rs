//! Entries with low IDs, in pages.

use crate::sync::Arc;

/// How many entries a page holds.
const PAGE: usize = 32;

/// How many pages there may be however few entries they hold.
const FEW: usize = 8;

/// Entries by number, as long as the numbers are dense: finding one takes two steps, and needs no allocation of
/// its own. A clone shares the pages, and a page is copied when it is changed while a clone has it too.
#[derive(Clone)]
pub(super) struct Pages<V: Clone> {
    pages: Vec<Page<V>>,
    len: usize,
    /// Pages without entries whose memory is kept: two at most, the lowest.
    spare: Vec<usize>,
}

#[derive(Clone)]
struct Page<V> {
    /// How many are used.
    used: usize,
    /// All `PAGE` of them, or none.
    slots: Option<Arc<[Option<V>]>>,
}

impl<V: Clone> Default for Pages<V> {
    fn default() -> Self {
        Pages { pages: Vec::new(), len: 0, spare: Vec::new() }
    }
}

impl<V: Clone> Pages<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether an entry at this number may stand here. Whoever chooses the numbers (the peer, for some tables)
    /// can't have more memory taken than some times what its entries need: another page is made only if half of
    /// what there is before it is in use.
    pub(super) fn admits(&self, at: u64) -> bool {
        let page = at / PAGE as u64;
        page < FEW.max(self.pages.len()) as u64
            || (page == self.pages.len() as u64 && 2 * self.len as u64 >= at - at % PAGE as u64)
    }

    pub(super) fn get(&self, at: u64) -> Option<&V> {
        let (page, slot) = place(at);
        self.pages.get(page)?.slots.as_ref()?[slot].as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u64) -> Option<&mut V> {
        let (page, slot) = place(at);
        let slots = self.pages.get_mut(page)?.slots.as_mut()?;
        // Not for what is not there: that would copy a page for nothing.
        slots[slot].as_ref()?;
        Arc::make_mut(slots)[slot].as_mut()
    }

    /// Puts an entry where there was none, which [`admits`](Self::admits) has allowed.
    pub(super) fn insert(&mut self, at: u64, entry: V) {
        let (at, slot) = place(at);
        if at >= self.pages.len() {
            self.pages.resize_with(at + 1, || Page { used: 0, slots: None });
        }
        let page = &mut self.pages[at];
        if page.used == 0 && page.slots.is_some() {
            self.spare.retain(|spare| *spare != at);
        }
        let slots = page.slots.get_or_insert_with(|| (0..PAGE).map(|_| None).collect());
        Arc::make_mut(slots)[slot] = Some(entry);
        page.used += 1;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: u64) -> Option<V> {
        let (at, slot) = place(at);
        let page = self.pages.get_mut(at)?;
        let slots = page.slots.as_mut()?;
        slots[slot].as_ref()?;
        let entry = Arc::make_mut(slots)[slot].take();
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.emptied(at);
        }
        entry
    }

    /// Frees a page without entries; but keeps some, which are the next to be used.
    fn emptied(&mut self, at: usize) {
        self.spare.push(at);
        if self.spare.len() <= 2 {
            return;
        }
        self.spare.sort_unstable();
        if let Some(highest) = self.spare.pop() {
            self.pages[highest].slots = None;
        }
        while self.pages.last().is_some_and(|page| page.slots.is_none()) {
            self.pages.pop();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.pages.iter().enumerate().flat_map(|(at, page)| {
            let slots = page.slots.as_deref().filter(|_| page.used > 0).unwrap_or_default();
            let numbered = slots.iter().enumerate();
            numbered.filter_map(move |(slot, entry)| Some(((at * PAGE + slot) as u64, entry.as_ref()?)))
        })
    }
}

/// The page and the slot in it.
fn place(at: u64) -> (usize, usize) {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    (at / PAGE, at % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory is given back, but for two pages: the lowest, which are the next to be used.
    #[test]
    fn pages_without_entries_are_freed() {
        let mut pages = Pages::default();
        (0..1000).for_each(|at| pages.insert(at, at));
        (0..999).rev().for_each(|at| assert_eq!(pages.remove(at), Some(at)));
        let held = |pages: &Pages<u64>| -> Vec<usize> {
            let numbered = pages.pages.iter().enumerate();
            numbered.filter(|(_, page)| page.slots.is_some()).map(|(at, _)| at).collect()
        };
        assert_eq!(held(&pages), [0, 1, 31]);
        assert!(pages.admits(1000) && !pages.admits(1024), "what is there is not half full");
        assert_eq!(pages.remove(999), Some(999));
        assert_eq!((held(&pages), pages.pages.len()), (vec![0, 1], 2));
    }
}
