//! Entries with low IDs, in pages.

use crate::sync::Arc;

/// The number of entries in a page.
const PAGE: usize = 32;

/// The number of pages that there may be, however few entries they hold.
const FEW: usize = 8;

/// The number of pages in a chunk.
const CHUNK: usize = 64;

/// Entries by number, as long as the numbers are dense: finding one takes two or three steps, and needs no allocation of
/// its own. See Note [What a clone costs].
#[derive(Clone)]
pub(super) struct Pages<V: Clone> {
    /// The pages that most tables have at most. They stand here, so that finding an entry in them takes a step less.
    first: Vec<Page<V>>,
    /// The pages behind those, by chunks. The last chunk is not empty.
    chunks: Vec<Arc<Vec<Page<V>>>>,
    /// The number of pages.
    pages: usize,
    len: usize,
    /// Pages without entries whose memory is kept: two at most, the lowest.
    spare: Vec<usize>,
}

#[derive(Clone)]
struct Page<V> {
    /// The number of slots that are used.
    used: usize,
    /// All `PAGE` of them, or none.
    slots: Option<Arc<[Option<V>]>>,
}

impl<V> Default for Page<V> {
    fn default() -> Self {
        Page { used: 0, slots: None }
    }
}

impl<V: Clone> Default for Pages<V> {
    fn default() -> Self {
        Pages { first: Vec::new(), chunks: Vec::new(), pages: 0, len: 0, spare: Vec::new() }
    }
}

impl<V: Clone> Pages<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether an entry at this number may stand here. Another page is made only if half of the slots in the pages before it
    /// are in use. So a peer that chooses the numbers can't make the pages take much more memory than its entries need.
    pub(super) fn admits(&self, at: u64) -> bool {
        let (page, pages) = (at / PAGE as u64, self.pages as u64);
        page < pages.max(FEW as u64) || (page == pages && 2 * self.len as u64 >= at - at % PAGE as u64)
    }

    pub(super) fn get(&self, at: u64) -> Option<&V> {
        let (page, slot) = place(at);
        self.page(page)?.slots.as_ref()?[slot].as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u64) -> Option<&mut V> {
        let (page, slot) = place(at);
        let slots = self.page_mut(page)?.slots.as_mut()?;
        // A page without the entry must not be copied.
        slots[slot].as_ref()?;
        Arc::make_mut(slots)[slot].as_mut()
    }

    /// Puts an entry where there was none, which [`admits`](Self::admits) has allowed.
    pub(super) fn insert(&mut self, at: u64, entry: V) {
        let (at, slot) = place(at);
        while self.pages <= at {
            self.add_page();
        }
        let page = self.page_mut(at).expect("just made, if it was not there");
        let was_spare = page.used == 0 && page.slots.is_some();
        let slots = page.slots.get_or_insert_with(|| (0..PAGE).map(|_| None).collect());
        Arc::make_mut(slots)[slot] = Some(entry);
        page.used += 1;
        self.len += 1;
        if was_spare {
            self.spare.retain(|spare| *spare != at);
        }
    }

    pub(super) fn remove(&mut self, at: u64) -> Option<V> {
        let (at, slot) = place(at);
        let page = self.page_mut(at)?;
        let slots = page.slots.as_mut()?;
        slots[slot].as_ref()?;
        let entry = Arc::make_mut(slots)[slot].take();
        page.used -= 1;
        let is_empty = page.used == 0;
        self.len -= 1;
        if is_empty {
            self.emptied(at);
        }
        entry
    }

    /// Frees a page without entries. The lowest two stay, since they are used next.
    fn emptied(&mut self, at: usize) {
        self.spare.push(at);
        if self.spare.len() <= 2 {
            return;
        }
        self.spare.sort_unstable();
        if let Some(highest) = self.spare.pop() {
            if let Some(page) = self.page_mut(highest) {
                page.slots = None;
            }
        }
        while self.last_page().is_some_and(|page| page.slots.is_none()) {
            self.remove_last_page();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        let pages = self.first.iter().chain(self.chunks.iter().flat_map(|chunk| chunk.iter()));
        pages.enumerate().flat_map(|(at, page)| {
            let slots = page.slots.as_deref().filter(|_| page.used > 0).unwrap_or_default();
            let numbered = slots.iter().enumerate();
            numbered.filter_map(move |(slot, entry)| Some(((at * PAGE + slot) as u64, entry.as_ref()?)))
        })
    }

    fn page(&self, at: usize) -> Option<&Page<V>> {
        match at < CHUNK {
            true => self.first.get(at),
            false => self.chunks.get(at / CHUNK - 1)?.get(at % CHUNK),
        }
    }

    /// A page that is to be changed.
    fn page_mut(&mut self, at: usize) -> Option<&mut Page<V>> {
        match at < CHUNK {
            true => self.first.get_mut(at),
            false => Arc::make_mut(self.chunks.get_mut(at / CHUNK - 1)?).get_mut(at % CHUNK),
        }
    }

    fn add_page(&mut self) {
        self.pages += 1;
        if self.first.len() < CHUNK {
            return self.first.push(Page::default());
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Arc::new(Vec::with_capacity(CHUNK)));
        }
        let last = self.chunks.last_mut().expect("just made, if there was none with room");
        Arc::make_mut(last).push(Page::default());
    }

    fn last_page(&self) -> Option<&Page<V>> {
        self.chunks.last().map_or(self.first.last(), |chunk| chunk.last())
    }

    fn remove_last_page(&mut self) {
        self.pages -= 1;
        match self.chunks.last_mut().map(Arc::make_mut) {
            None => _ = self.first.pop(),
            Some(last) => {
                last.pop();
                if last.is_empty() {
                    self.chunks.pop();
                }
            }
        }
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
            let chunks = pages.chunks.iter().flat_map(|chunk| chunk.iter());
            let numbered = pages.first.iter().chain(chunks).enumerate();
            numbered.filter(|(_, page)| page.slots.is_some()).map(|(at, _)| at).collect()
        };
        assert_eq!(held(&pages), [0, 1, 31]);
        assert!(pages.admits(1000) && !pages.admits(1024), "what is there is not half full");
        assert_eq!(pages.remove(999), Some(999));
        assert_eq!((held(&pages), pages.pages), (vec![0, 1], 2));
    }

    /// Chunks come and go as pages do, and each number keeps its entry.
    #[test]
    fn entries_of_many_chunks_are_found_and_go() {
        const COUNT: u64 = (3 * CHUNK * PAGE) as u64 + 1;
        let mut pages = Pages::default();
        (0..COUNT).for_each(|at| {
            assert!(pages.admits(at));
            pages.insert(at, at);
        });
        assert_eq!((pages.len() as u64, pages.pages, pages.chunks.len()), (COUNT, 3 * CHUNK + 1, 3));
        assert!(pages.iter().map(|(at, entry)| (at, *entry)).eq((0..COUNT).map(|at| (at, at))));
        (0..COUNT).for_each(|at| *pages.get_mut(at).unwrap() += 1);
        (0..COUNT).rev().for_each(|at| assert_eq!(pages.remove(at), Some(at + 1)));
        assert_eq!((pages.len(), pages.pages, pages.chunks.len()), (0, 2, 0));
    }

    thread_local! {
        /// The number of entries that have been cloned.
        static CLONES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    struct Counted;

    impl Clone for Counted {
        fn clone(&self) -> Self {
            CLONES.with(|clones| clones.set(clones.get() + 1));
            Counted
        }
    }

    /// See Note [What a clone costs].
    #[test]
    fn a_clone_of_100_000_entries_takes_some_reference_counts_and_a_change_copies_one_page() {
        let clones = || CLONES.with(|clones| clones.take());
        let mut pages = Pages::default();
        (0..100_000).for_each(|at| pages.insert(at, Counted));
        assert_eq!(clones(), 0);
        let copy = pages.clone();
        let counts = copy.first.len() + copy.chunks.len();
        assert_eq!(clones(), 0, "no entry is copied");
        assert!(counts <= CHUNK + 100_000 / (CHUNK * PAGE) + 1, "{counts} reference counts");
        for at in [0, 99_999] {
            for _ in 0..2 {
                assert!(pages.get_mut(at).is_some());
            }
            assert_eq!(clones(), PAGE, "the page of entry {at}, once");
        }
        assert!(pages.get_mut(100_000).is_none() && clones() == 0, "what is not there copies nothing");
        let shared = |(ours, theirs): (&Arc<_>, &Arc<_>)| usize::from(Arc::ptr_eq(ours, theirs));
        let chunks = pages.chunks.iter().zip(&copy.chunks).map(shared).sum::<usize>();
        assert_eq!(chunks, copy.chunks.len() - 1, "all chunks but that of the entry that was changed");
        drop(copy);
        assert!(pages.remove(99_999).is_some() && pages.get_mut(5000).is_some());
        assert_eq!(clones(), 0, "nothing is copied that nobody else has");
    }
}
