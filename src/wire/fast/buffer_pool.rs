//! Memory of received messages, kept to be used again.
//!
//! What it buys: of the instructions for reading 64 KiB (`stream-64KiB`, `echo-1MiB`), half, since no memory is cleared
//! first; of those for reading 16 B, a twelfth; and `throughput-1KiB` is 1.08 times as fast (`benches/HISTORY.md`).
//!
//! ```text
//! Note [Spare memory]
//! ===================
//! Safe code can only read into memory that has been written before, and clearing 1 MiB costs as much as copying it. So the
//! memory of a large message (`SMALLEST_WORDS` or more) goes to a list of the process when the message is dropped, and the
//! next message of about that size is read over the old one. The old message cannot be seen: a frame shows only its
//! segments, and each word of these has been read.
//!
//! The list belongs to the process and not to a connection, so an idle connection keeps no memory. It holds at most 8 MiB,
//! whatever the number of messages and connections.
//!
//! Small messages are received in batches, and dropped one by one, nearly always by one thread. The system's allocator
//! keeps 7 pieces of a size at hand for a thread, and none above 1,032 bytes. So each thread keeps pieces of two sizes
//! itself: 64 of 256 bytes, and 32 of 1.5 KiB.
//!
//! Note [Place in a page]
//! ======================
//! Processors with fast string moves (`rep movsb`, which is how Linux copies from a socket) are three times as slow if the
//! destination is less than a cache line ahead of the source, both taken modulo the page of 4 KiB. That happens often:
//! Linux puts what is written to a socket at the beginning of a page if nothing else is there, and allocators give large
//! memory at 16 bytes behind the beginning of one. So a large message is read to half a page from there, if its memory has
//! been used before.
//! ```

use capnp::Word;

/// Messages smaller than this are cheap to clear.
pub(crate) const SMALLEST_WORDS: usize = 2 << 10;

/// The number of words by which memory is larger than its message, so that the message can begin anywhere in a page.
const MARGIN_WORDS: usize = PAGE / WORD;

const PAGE: usize = 4096;
const WORD: usize = 8;

/// The number of words to leave out at the beginning of memory. See Note [Place in a page].
pub(crate) fn start(memory: &[Word]) -> usize {
    // The body of a message that starts a page begins behind its segment table, which has one word in most messages.
    let place = WORD + PAGE / 2;
    (place + PAGE - memory.as_ptr() as usize % PAGE) % PAGE / WORD
}

/// The number of words of memory that is made for a message of so many words.
pub(crate) fn room_for(words: usize) -> usize {
    if words < SMALLEST_WORDS {
        words
    } else {
        words.saturating_add(MARGIN_WORDS)
    }
}

/// Memory [for](room_for) a message of so many words, or a little more. Its bytes may be of any earlier message. `None` if
/// the list has none of about that size.
#[cfg(not(any(shuttle, loom)))]
pub(crate) fn take(words: usize) -> Option<Vec<Word>> {
    if words < SMALLEST_WORDS {
        return None;
    }
    list::of_the_process().lock().take(room_for(words))
}

/// Keeps the memory of a message that is dropped.
#[cfg(not(any(shuttle, loom)))]
pub(crate) fn give(memory: Vec<Word>) {
    if memory.len() >= SMALLEST_WORDS {
        let pushed_out = list::of_the_process().lock().give(memory);
        drop(pushed_out);
    } else {
        small::give(memory);
    }
}

/// A copy of a message. If the message is small, the memory may be that of an earlier one.
#[cfg(not(any(shuttle, loom)))]
pub(crate) fn copy(message: &[Word]) -> Vec<Word> {
    let mut memory = small::take(message.len());
    memory.extend_from_slice(message);
    memory
}

/// A model checker's runs share nothing.
#[cfg(any(shuttle, loom))]
pub(crate) fn take(_: usize) -> Option<Vec<Word>> {
    None
}

#[cfg(any(shuttle, loom))]
pub(crate) fn copy(message: &[Word]) -> Vec<Word> {
    message.to_vec()
}

#[cfg(any(shuttle, loom))]
pub(crate) fn give(_: Vec<Word>) {}

#[cfg(not(any(shuttle, loom)))]
mod small {
    use std::cell::RefCell;

    use capnp::Word;

    use crate::sync::per_thread;

    /// The sizes of the memory that is kept, in words: enough for calls with few params, and with a kilobyte of them.
    const SIZES: [usize; 2] = [32, 192];
    /// The number of pieces of each size that a thread keeps.
    const MOST: [usize; 2] = [64, 32];

    type SparePieces = [Vec<Vec<Word>>; SIZES.len()];

    per_thread! {
        static KEPT: RefCell<SparePieces> = RefCell::new([const { Vec::new() }; SIZES.len()]);
    }

    /// Empty memory for so many words.
    pub(super) fn take(words: usize) -> Vec<Word> {
        let Some(size) = SIZES.iter().position(|size| words <= *size) else {
            return Vec::with_capacity(words);
        };
        // At the end of a thread there is no list.
        let kept = KEPT.try_with(|kept| kept.borrow_mut()[size].pop()).ok().flatten();
        kept.unwrap_or_else(|| Vec::with_capacity(SIZES[size]))
    }

    /// Keeps memory that was [taken](take), unless this thread has `MOST` pieces of its size already.
    pub(super) fn give(mut memory: Vec<Word>) {
        let Some(size) = SIZES.iter().position(|size| memory.capacity() == *size) else { return };
        let _ = KEPT.try_with(|kept| {
            let kept = &mut kept.borrow_mut()[size];
            if kept.len() < MOST[size] {
                memory.clear();
                kept.push(memory);
            }
        });
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn small_memory_is_used_again_by_its_thread() {
            for (size, most) in SIZES.into_iter().zip(MOST) {
                let taken: Vec<_> = (0..most + 5).map(|_| take(size - 1)).collect();
                let last = taken[most - 1].as_ptr();
                assert!(taken.iter().all(|memory| memory.is_empty() && memory.capacity() == size));
                taken.into_iter().for_each(give);
                let again = take(1 + size / 2);
                assert_eq!(again.as_ptr(), last, "no more than {most} are kept, the last comes first");
            }
        }
    }
}

#[cfg(not(any(shuttle, loom)))]
mod list {
    use std::collections::VecDeque;

    use capnp::Word;

    use crate::sync::{Mutex, OnceLock, Rank};

    /// The number of words that are kept at most: 8 MiB.
    pub(super) const MOST_WORDS: usize = 1 << 20;
    /// The largest memory that is kept.
    pub(super) const LARGEST_WORDS: usize = MOST_WORDS / 4;

    /// The memory that is kept, the oldest first.
    #[derive(Default)]
    pub(super) struct SpareList {
        kept: VecDeque<Vec<Word>>,
        words: usize,
    }

    pub(super) fn of_the_process() -> &'static Mutex<SpareList> {
        static SPARE: OnceLock<Mutex<SpareList>> = OnceLock::new();
        SPARE.get_or_init(|| Mutex::new(Rank::Memory, SpareList::default()))
    }

    impl SpareList {
        /// Of the memory that fits, the one that was given last: of that the most may still be in a cache. Memory of more
        /// than twice the size does not fit: a small message that is kept for long must not keep so much.
        pub(super) fn take(&mut self, words: usize) -> Option<Vec<Word>> {
            let fits = |memory: &Vec<Word>| memory.len() >= words && memory.len() / 2 <= words;
            let at = self.kept.iter().rposition(fits)?;
            let memory = self.kept.remove(at)?;
            self.words -= memory.len();
            Some(memory)
        }

        /// Keeps the memory. Returns the memory that has no room any more.
        pub(super) fn give(&mut self, memory: Vec<Word>) -> Vec<Vec<Word>> {
            if memory.len() > LARGEST_WORDS {
                return vec![memory];
            }
            self.words += memory.len();
            self.kept.push_back(memory);
            let mut pushed_out = Vec::new();
            while self.words > MOST_WORDS {
                let Some(oldest) = self.kept.pop_front() else { break };
                self.words -= oldest.len();
                pushed_out.push(oldest);
            }
            pushed_out
        }
    }

    #[cfg(test)]
    mod tests {
        use super::super::{start, MARGIN_WORDS};
        use super::*;

        fn memory(words: usize) -> Vec<Word> {
            Word::allocate_zeroed_vec(words)
        }

        fn lengths(all: &[Vec<Word>]) -> Vec<usize> {
            all.iter().map(Vec::len).collect()
        }

        #[test]
        fn memory_of_about_the_size_is_used_again_and_the_last_given_comes_first() {
            let mut spare = SpareList::default();
            for words in [5000, 9000, 9001, 4000] {
                assert!(spare.give(memory(words)).is_empty());
            }
            let mut taken = |words| spare.take(words).map(|memory| memory.len());
            assert_eq!(taken(4500), Some(9001));
            assert_eq!(taken(4500), Some(9000));
            assert_eq!(taken(4500), Some(5000));
            assert_eq!(taken(4500), None, "none is large enough");
            assert_eq!(taken(1999), None, "none is small enough");
            assert_eq!(taken(2000), Some(4000));
            assert_eq!((spare.words, spare.kept.len()), (0, 0));
        }

        #[test]
        fn the_place_in_a_page_is_the_same_wherever_the_memory_begins() {
            let memory = memory(3 * MARGIN_WORDS);
            for skip in 0..MARGIN_WORDS {
                let start = start(&memory[skip..]);
                assert!(start < MARGIN_WORDS);
                assert_eq!(memory[skip + start..].as_ptr() as usize % 4096, 2056);
            }
        }

        #[test]
        fn the_oldest_make_room() {
            let mut spare = SpareList::default();
            let half = LARGEST_WORDS / 2;
            for i in 0..8 {
                assert!(spare.give(memory(half - i)).is_empty());
            }
            assert_eq!(lengths(&spare.give(memory(LARGEST_WORDS))), [half, half - 1]);
            assert!(spare.words <= MOST_WORDS);
            assert_eq!(lengths(&spare.give(memory(LARGEST_WORDS + 1))), [LARGEST_WORDS + 1]);
        }
    }
}
